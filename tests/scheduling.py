"""Which process runs which test file, and when."""

from __future__ import annotations

import re
from pathlib import Path

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# Seconds of the longest files, so that none of them begins when the others are done. Others count as short.
SECONDS = {
    "tests/test_readme.py": 60,
    "tests/test_server_attacks.py": 60,
    "tests/test_server_openvino.py": 40,
    "tests/test_web_attacks.py": 30,
    "tests/test_training_resume.py": 35,
    "tests/test_client_away.py": 30,
    "tests/test_bundled_model.py": 25,
    "tests/test_converter_forms.py": 25,
    "tests/test_converter_cli.py": 20,
    "tests/test_converter_reference.py": 20,
    "tests/test_web_schema.py": 15,
    "tests/test_training_folds.py": 18,
    "tests/test_training_transfer.py": 18,
    "tests/test_training_train.py": 17,
    "tests/test_client_bench.py": 16,
    "tests/test_server_app.py": 16,
    "tests/test_deploy.py": 16,
    "tests/test_training_audit.py": 15,
    "tests/test_bench_conversion.py": 14,
    "tests/test_training_layout.py": 14,
    "tests/test_bench_client.py": 14,
    "tests/test_bench_report.py": 13,
    "tests/test_training_judge.py": 12,
    "tests/test_client_channel.py": 12,
    "tests/test_end_to_end.py": 12,
    "tests/test_client_overload.py": 11,
    "tests/test_client_stream.py": 11,
    "tests/test_client_watch.py": 10,
    "tests/test_client_page.py": 10,
    "tests/test_client_study_life.py": 10,
    "tests/test_converter_convert.py": 10,
    "tests/test_training_localisation.py": 10,
    "tests/test_converter_quantize.py": 8,
    "tests/test_processes.py": 8,
}
HEAVY = re.compile(r"^\W*(pytestmark = )?pytest\.mark\.tensorflow", re.MULTILINE)


class FileScheduling(LoadFileScheduling):
    """Files, the longest first; those with TensorFlow in one process as long as there is anything else to do."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        holders = [worker for worker, files in self.assigned_work.items() if any(map(self._is_heavy, files))]
        heavy = node in holders or not holders
        best = max(self.workqueue, key=lambda file: (self._is_heavy(file) == heavy, SECONDS.get(file, 0)))
        self.workqueue.move_to_end(best, last=False)
        super()._assign_work_unit(node)

    def _is_heavy(self, file: str) -> bool:
        """Whether tests of a file load TensorFlow: here only the names of tests are known, not their marks."""
        return HEAVY.search(Path(self.config.rootpath, file).read_text("utf-8")) is not None

    def _reschedule(self, node: WorkerController) -> None:
        """Leaves a process alone that replaces a crashed one and still reads the tests; it asks when it has done so."""
        if node in self.registered_collections:
            super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Takes the work of a process that crashed, and returns the test that it ran.

        The scheduler that this is made from would run that test again, and crash again, until no process is left.
        """
        files = self.assigned_work.pop(node)
        waiting = [(file, test) for file, tests in files.items() for test, done in tests.items() if not done]
        if not waiting:
            return None
        file, crashed = waiting[0]
        files[file][crashed] = True
        self.workqueue.update({file: files[file] for file, _ in waiting[1:]})
        for other in self.nodes:
            self._reschedule(other)
        return crashed
