# Mailfleet. `make` alone explains itself: the comment after each target's name is its help.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
RECIPIENTS ?= 20000
export RECIPIENTS

.PHONY: help
help: ## what can be made here
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 24

# --- what the other targets need -------------------------------------------------------------------
.PHONY: packages
packages: ## install the Debian packages that tests and cluster need (root only; else says what is missing)
	@deploy/debian-packages.sh tests cluster

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(VENV)/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.PHONY: venv
venv: $(VENV)/.installed ## the virtual environment with all that development needs

# Images have a Python that was built with profile-guided optimisation, as Debian's is; others (pyenv's) are a fifth slower.
FAST_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
FAST_VENV := .venv-fast
$(FAST_VENV)/.installed: $(VENV)/.installed
	$(FAST_PYTHON) -m venv --clear --without-pip $(FAST_VENV)
	$(PY) -m pip --python $(FAST_VENV)/bin/python install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PY) -m pip --python $(FAST_VENV)/bin/python install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.PHONY: fast-venv
fast-venv: $(FAST_VENV)/.installed

.PHONY: requirements
requirements: venv ## pin the requirements again, with hashes and without addresses (needs uv on PATH)
	for set in "operator:--extra operator" "sender:--extra sender" "dev:--extra operator --extra sender --group dev"; do \
	  UV_CUSTOM_COMPILE_COMMAND="make requirements" uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-annotate --no-emit-index-url --no-emit-find-links $${set#*:} pyproject.toml -o requirements/$${set%%:*}.txt; done

# --- files that are made from others: a test says which of them is out of date ---------------------
RELEASE := PYTHONPATH=deploy/release:deploy/cluster $(PY) -B -m mailfleet_release

.PHONY: generated
generated: venv ## write anew all files that are made from others (but for tests/schemas, which take a download)
	cp crds/*.yaml charts/mailfleet/files/crds/
	@$(RELEASE) chart-readme api.md fields.md install.yaml namespace.yaml definitions.yaml operator.yaml
	@PYTHONPATH=tests $(PY) -B -m gitops.files

.PHONY: chart-readme
chart-readme: venv ## write charts/mailfleet/README.md from the comments of values.yaml
	@$(RELEASE) chart-readme

.PHONY: api-reference
api-reference: venv ## write docs/reference/api.md and fields.md anew from the definitions and tests/reference/fields.yaml
	@$(RELEASE) api.md fields.md

.PHONY: install-yaml
install-yaml: venv ## write deploy/install.yaml and the kustomize base anew from the chart
	@$(RELEASE) install.yaml namespace.yaml definitions.yaml operator.yaml

.PHONY: argocd
argocd: venv ## write deploy/argocd's test data and ConfigMaps anew from its Lua and the operator's rules
	@PYTHONPATH=tests $(PY) -B -m gitops.files

.PHONY: schemas
schemas: venv ## write tests/schemas anew from the Go modules of the supported Kubernetes versions
	@$(RELEASE) kubernetes-1.33.13 kubernetes-1.34.4 kubernetes-1.35.4

# --- checks ----------------------------------------------------------------------------------------
.PHONY: lint
lint: venv ## ruff, mypy --strict, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Files of tests share nothing, so two run at once; but those on the node, which look at rates, have the machine alone.
TWO_AT_ONCE := -n 2 --dist loadfile

.PHONY: test-unit
test-unit: venv ## the tests that need nothing but Python: a minute; the model of the operator with a tenth of its examples
	MAILFLEET_MODEL_EXAMPLES=100 $(VENV)/bin/pytest $(TWO_AT_ONCE) tests/unit

.PHONY: nightly
nightly: venv ## property tests with more examples, and ever new ones: 10,000, and 50,000 of the operator's model (35 minutes) beside them
	@deploy/debian-packages.sh tests
	MAILFLEET_EXAMPLES=10000 MAILFLEET_MODEL_EXAMPLES=50000 $(VENV)/bin/pytest -m hypothesis tests/unit/test_model.py & model=$$!; \
	MAILFLEET_EXAMPLES=10000 $(VENV)/bin/pytest --timeout 1800 -m hypothesis --ignore tests/unit/test_model.py tests/unit tests/integration; \
	others=$$?; wait $$model && exit $$others

.PHONY: test-integration
test-integration: venv ## the tests on real Postgres, Redis and SMTP servers
	@deploy/debian-packages.sh tests
	$(VENV)/bin/pytest tests/integration

# --- cluster and images ----------------------------------------------------------------------------
# Python's standard library is all that this needs. What was built is kept in $MAILFLEET_CACHE (~/.cache/mailfleet).
CLUSTER_TOOL := PYTHONPATH=deploy/cluster python3 -B -m mailfleet_cluster

.PHONY: cluster
cluster: ## a Kubernetes: CLUSTER=existing (with KUBECONFIG), else kind, else the official components as processes
	@$(CLUSTER_TOOL) up

.PHONY: images
images: ## the images of Mailfleet and its demo, built and brought to the cluster; prints their names
	@$(CLUSTER_TOOL) images

.PHONY: warm
warm: ## build what the cluster needs and what takes minutes, without starting it
	@$(CLUSTER_TOOL) warm

.PHONY: cluster-down
cluster-down: ## remove the cluster and all that belongs to it, also after a crash
	@$(CLUSTER_TOOL) down

# --- everything, as CI runs it --------------------------------------------------------------------------
.PHONY: test
test: venv cluster images ## all tests: unit, integration, API, end to end
	@deploy/debian-packages.sh tests
	$(VENV)/bin/pytest $(TWO_AT_ONCE) tests --ignore tests/e2e
	$(VENV)/bin/pytest tests/e2e

.PHONY: test-api
test-api: venv warm ## the tests on a real kube-apiserver without a node
	@deploy/debian-packages.sh tests
	$(VENV)/bin/pytest tests/api

.PHONY: test-gitops
test-gitops: venv cluster images ## campaigns in Git: the real Argo CD, its Lua, real sending on a real node (5 minutes; a build of 6 once)
	@deploy/debian-packages.sh tests
	$(VENV)/bin/pytest tests/unit/test_argocd.py tests/api/test_argocd_engine.py tests/api/test_argocd_lab.py tests/e2e/test_gitops.py

# --- measurements that are too long for a test ------------------------------------------------------------
.PHONY: rates
rates: venv ## 1,000/s and 50/s held by 1, 3 and 8 senders, a minute each, judged at the oracle (8 minutes)
	@deploy/debian-packages.sh tests
	$(PY) benchmarks/rates.py

.PHONY: bench-limiter
bench-limiter: venv ## what the limiter promises, with real processes and Redis; fails if one does not hold (2 minutes)
	@deploy/debian-packages.sh tests
	$(PY) benchmarks/limiter_promises.py

.PHONY: kills
kills: venv ## kill -9 in full flight at 20 seeded moments, Skip and Resend, counted by the oracle (8 minutes)
	@deploy/debian-packages.sh tests
	KILL_MOMENTS=20 $(VENV)/bin/pytest -s tests/integration/test_kill.py

FAULTS := PYTHONPATH=tests:deploy/sink $(PY) -B -m faults

.PHONY: faults
faults: venv ## the matrix of faults: some 90 rows, 360 runs on real processes (25 minutes; ROWS, PIPELINING=Chunking)
	@deploy/debian-packages.sh tests
	$(FAULTS) $(if $(PIPELINING),--pipelining $(PIPELINING)) $(ROWS)

.PHONY: faults-guards
faults-guards: venv ## each guard of the protocol cut out of a copy: something must fail without it (8 minutes)
	@deploy/debian-packages.sh tests
	$(FAULTS).guards

.PHONY: reliability
reliability: venv ## write docs/reliability.md from the results of the two above
	$(FAULTS).page

.PHONY: reference
reference: venv ## write the pages of docs/reference that are made from the code
	PYTHONPATH=tests $(PY) -B -m reference.metrics
	PYTHONPATH=tests $(PY) -B -m reference.describe

.PHONY: memory
memory: venv ## peak memory of a sender for 10,000 and for 1,000,000 recipients (4 minutes)
	@deploy/debian-packages.sh tests
	$(PY) benchmarks/memory.py

.PHONY: many
many: venv warm ## 200 campaigns at once: seconds to each one's first look, the operator's memory, requests (3 minutes)
	@deploy/debian-packages.sh tests
	$(PY) benchmarks/many.py

.PHONY: bench-plan
bench-plan: venv ## 1,000,000 and 10,000,000 recipients planned: seconds, counts, peak memory (4 minutes; LOCK=file to be alone)
	@deploy/debian-packages.sh tests
	$(PY) benchmarks/plan.py $(if $(LOCK),--lock $(LOCK))

.PHONY: bench
bench: fast-venv ## the sender beside BullMQ + nodemailer, Go and the floor, at 0, 10 and 50 ms; fails below its goals (14 minutes)
	@deploy/debian-packages.sh tests
	$(FAST_VENV)/bin/python benchmarks/bench.py

.PHONY: bench-quick
bench-quick: fast-venv ## the same with few recipients and one round: counts and hashes are judged, goals are not (2 minutes)
	@deploy/debian-packages.sh tests
	$(FAST_VENV)/bin/python benchmarks/bench.py --quick

.PHONY: bench-ledger
bench-ledger: fast-venv ## claim and record of a sender beside plainer ledgers, on a durable Postgres (3 minutes)
	@deploy/debian-packages.sh tests
	$(FAST_VENV)/bin/python benchmarks/ledger.py

.PHONY: bench-render
bench-render: fast-venv ## what a mail costs to make, beside the standard library's EmailMessage (seconds)
	$(FAST_VENV)/bin/python benchmarks/render.py

.PHONY: performance
performance: venv ## write docs/performance.md from what bench, bench-*, and memory left in build/
	$(PY) benchmarks/page.py

.PHONY: scaling-page
scaling-page: venv ## write docs/scaling.md: the control law in simulations, as plots (seconds)
	$(PY) benchmarks/scaling_page.py

# --- demo and e2e ----------------------------------------------------------------------------------
DEMO := PYTHONPATH=deploy/demo:deploy/cluster $(PY) -B -m mailfleet_demo

.PHONY: demo
demo: venv cluster images ## a campaign from an empty table to its books, on a real node (RECIPIENTS=20000)
	@$(DEMO) --recipients $(RECIPIENTS)

.PHONY: demo-down
demo-down: venv ## remove what the demo installed; the cluster stays
	@$(DEMO) --down

.PHONY: test-e2e
test-e2e: venv cluster images ## the tests on a real node: pods killed, the operator killed, bad input, campaigns in Git
	@deploy/debian-packages.sh tests
	$(VENV)/bin/pytest tests/e2e
