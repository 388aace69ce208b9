"""``make audit``: asks for known vulnerabilities of everything that is locked, and says so where nobody could be asked.

Exit codes: 0 none is known, 1 some are, 3 no source of advisories could be reached, so that nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXTRAS = ("web", "openvino", "signing", "dicom", "dicom-codecs", "efficientnet")
LOCKS = (
    "client",
    "cli",
    "gateway",
    "server",
    *(f"extras/{name}" for name in EXTRAS),
    "training",
    "cluster",
    "cluster-dev",
    "dev",
)
SECONDS = 300
UNKNOWN = 3


def main() -> int:
    """Asks lock by lock, and prints what is known."""
    asked, unasked, found = 0, 0, {}
    for purpose in LOCKS:
        dependencies = ask(HERE / f"{purpose}.lock")
        known = [one for one in dependencies if "skip_reason" not in one]
        asked, unasked = asked + len(known), unasked + len(dependencies) - len(known)
        for one in known:
            for hole in one["vulns"]:
                found[one["name"], one["version"], hole["id"]] = hole.get("fix_versions", [])
        print(f"{purpose}.lock: {len(known)} of {len(dependencies)} packages are known to the source of advisories")
    for (name, version, hole), mended in sorted(found.items()):
        print(f"{name} {version}: {hole}, mended in {', '.join(mended) or 'no version yet'}")
    if found:
        return 1
    if not asked:
        print("no source of advisories can be reached from here: nothing is known, run this where there is a network")
        return UNKNOWN
    print(f"no known vulnerability in {asked} packages" + (f"; {unasked} could not be asked for" if unasked else ""))
    return 0


def ask(lock: Path) -> list[dict[str, Any]]:
    """The packages of a lock file as pip-audit answers; none where it fails."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return dependencies


if __name__ == "__main__":
    sys.exit(main())
