# `make` shows what there is. Installed is into .venv (everything but Ray), .venv-serve (what serving needs), .venv-client,
# .venv-gateway or .venv-cluster.
PYTHON ?= python3
PIP_FLAGS = --quiet --disable-pip-version-check --require-hashes
ALL = .venv/bin/python
SERVE = .venv-serve/bin/python
NEIGHBOURS = tritonclient kserve perf_analyzer envoy moto

.DEFAULT_GOAL := help
.PHONY: help install install-server install-web install-dicom install-dicom-codecs install-openvino install-signing install-client install-gateway install-cluster install-neighbours wheel demo serve test test-cluster lint bench bench-peers bench-training bench-conversion faults faults-smoke soak ablation model samples proto lock certs sbom audit clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## set up everything in .venv, training included (3 GB)

install-server: .venv-serve/.installed ## set up what serving needs in .venv-serve (no TensorFlow)

install-web: .venv-serve/.installed-web ## add what --http needs to .venv-serve (6 MB)

install-dicom: .venv-serve/.installed-dicom ## add what DICOM files need to .venv-serve (15 MB)

install-dicom-codecs: .venv-serve/.installed-dicom-codecs ## add what compressed DICOM files need to .venv-serve (60 MB)

install-openvino: .venv-serve/.installed-openvino ## add what --runtime openvino needs to .venv-serve (180 MB)

install-signing: .venv-serve/.installed-signing ## add what signed models and certs need to .venv-serve (16 MB)

install-client: .venv-client/.installed ## set up what the client needs in .venv-client

install-gateway: .venv-gateway/.installed ## set up what the gateway to hospital systems needs in .venv-gateway (no model, no TensorFlow)

install-cluster: .venv-cluster/.installed ## set up what archives and Ray Serve need in .venv-cluster (700 MB)

install-neighbours: $(NEIGHBOURS:%=build/neighbours/%/.installed) ## set up others' clients, each in build/neighbours (500 MB)

wheel: .venv/.installed ## build the client as a wheel that other projects install, into dist/
	$(ALL) -m build --wheel --no-isolation

demo: .venv-serve/.installed-dicom ## start the server, classify the samples, stop it (no TensorFlow)
	@$(SERVE) -m bench.demo

serve: .venv-serve/.installed ## serve the bundled model on 127.0.0.1:50051 (settings: STROKE_*)
	$(SERVE) -m server

test: lint install-dicom install-client install-neighbours ## set up everything and run all checks, side by side on the cores there are
	$(ALL) -m pytest -n auto --maxprocesses 8 --max-worker-restart 100 --cov --cov-report=
	$(ALL) -m bench.faults --smoke

test-cluster: .venv-cluster/.installed-tests build/neighbours/moto/.installed ## set up and check what runs on Ray (some minutes; not part of make test)
	.venv-cluster/bin/python -m pytest tests/cluster --confcutdir tests/cluster

lint: .venv/.installed
	$(ALL) -m ruff check .
	$(ALL) -m mypy

bench: .venv/.installed ## measure speed, memory and cold start against the machine's limit (25 minutes; BASE=DIR: and against another checkout)
	$(ALL) -m bench.serving.decode --out docs
	$(ALL) -m bench.dicom.syntaxes --out docs
	$(ALL) -m bench.dicom.study --out docs
	$(ALL) -m bench.serving --resnet50 --out docs
	$(ALL) -m bench.serving.client --endurance 100000 --out docs
	$(ALL) -m bench.onebox --out docs
	$(ALL) -m bench.serving.protection --out docs $(if $(BASE),--base $(BASE))

bench-peers: .venv/.installed install-neighbours ## measure other model servers, protocols and load generators beside this one's (each installed in build; 40 minutes)
	$(ALL) -m bench.peers.runtimes --out docs
	$(ALL) -m bench.peers --out docs
	$(ALL) -m bench.serving.web --out docs
	$(ALL) -m bench.serving.interop --out docs

bench-training: .venv/.installed ## measure the budgets of training: input, memory, evaluation, transfer (40 minutes)
	$(ALL) -m bench.training --out docs
	$(ALL) -m bench.training.transfer --out docs

bench-conversion: .venv/.installed ## measure what converting well-known networks takes, and a whole run of ResNet-50 (15 minutes)
	$(ALL) -m bench.conversion --out docs
	$(ALL) -m bench.conversion.whole --out docs

faults: .venv/.installed ## inject faults into real servers, and judge every promise by what callers saw (15 minutes)
	$(ALL) -m bench.faults --out docs

faults-smoke: .venv/.installed ## the short form (about a minute)
	$(ALL) -m bench.faults --smoke

soak: .venv/.installed ## hold a load and print what grows (MINUTES=30)
	$(ALL) -m bench.faults --soak $(or $(MINUTES),30)

ablation: .venv/.installed ## measure what each part of training, generator and slices gives (12 minutes a training; goes on where it was)
	$(ALL) -m bench.training.ablation --out docs
	$(ALL) -m bench.training.findings --out docs
	$(ALL) -m bench.training.exports --out docs
	$(ALL) -m bench.training.realism --out docs

model: .venv/.installed ## train a model from nothing as the bundled one was (about two hours; goes on where it was; NETWORK=efficientnet-lite0: the second one)
	sh models/make_default.sh $(ALL)

samples: .venv/.installed ## draw the DICOM file of samples/ again, the same byte for byte
	rm -rf build/samples
	$(ALL) -m training phantom --out build/samples --count 8 --seed 2 --size 512 --dicom
	cp build/samples/stroke/00007.dcm samples/stroke-4.dcm

proto: .venv/.installed ## generate stubs and golden messages from proto/*.proto
	$(ALL) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. proto/stroke.proto
	$(ALL) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. proto/inference.proto
	$(ALL) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. proto/admin.proto
	$(ALL) -m proto.golden

lock: .venv/.installed ## resolve the pinned dependencies again
	sh requirements/lock.sh .venv/bin/uv

certs: .venv/.installed ## make a private authority, a server and a client certificate in certs/
	$(ALL) -m server certs --out certs

sbom: .venv/.installed ## list what each purpose installs, as CycloneDX, in build/
	@mkdir -p build
	for lock in client gateway server extras/web training; do .venv/bin/cyclonedx-py requirements requirements/$$lock.lock \
		--output-format JSON --output-reproducible --output-file build/sbom-$${lock##*/}.json || exit 1; done

audit: .venv/.installed ## ask for known vulnerabilities of everything that is locked (needs a network)
	$(ALL) requirements/audit.py

clean: ## remove environments and caches
	rm -rf .venv .venv-serve .venv-client .venv-gateway .venv-cluster .mypy_cache .pytest_cache .ruff_cache build

.venv/.installed: requirements/dev.lock
	@echo "setting up .venv (everything, TensorFlow included: a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(ALL) -m pip install $(PIP_FLAGS) -r $<
	@touch $@

.venv-serve/.installed: requirements/server.lock
.venv-client/.installed: requirements/cli.lock
.venv-gateway/.installed: requirements/gateway.lock
.venv-cluster/.installed: requirements/cluster.lock
.venv-serve/.installed .venv-client/.installed .venv-gateway/.installed .venv-cluster/.installed:
	@echo "setting up $(@D) ($(if $(findstring cluster,$@),a minute or two,less than half a minute))"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) -r $<
	@touch $@

.venv-serve/.installed-%: requirements/extras/%.lock .venv-serve/.installed
	@.venv-serve/bin/python -m pip install $(PIP_FLAGS) -r $<
	@touch $@

.venv-cluster/.installed-tests: requirements/cluster-dev.lock .venv/.installed
	@echo "setting up .venv-cluster with what its tests need (a minute)"
	@.venv/bin/uv venv --quiet --clear --python $(PYTHON) .venv-cluster
	@.venv/bin/uv pip install --quiet --compile-bytecode --python .venv-cluster --require-hashes --no-deps -r $<
	@touch .venv-cluster/.installed $@

build/neighbours/%/.installed: requirements/neighbours/%.lock .venv/.installed
	@echo "setting up $(@D) (a few seconds)"
	@.venv/bin/uv venv --quiet --clear --python $(PYTHON) $(@D)
	@.venv/bin/uv pip install --quiet --python $(@D) --require-hashes --no-deps -r $<
	@touch $@
