# One task file. `make help` lists the commands.
PYTHON ?= python3
VENV := .venv
LS_VENV := .venv-ls
LABEL_STUDIO := 1.23.2
BIN := $(VENV)/bin
# The pip that a new virtual environment has is as old as its Python; those before this one have known vulnerabilities.
PIP := 'pip>=26.0'
# Under CI and without a terminal pip's bars are noise; on a terminal they are the progress.
PIP_FLAGS := --disable-pip-version-check $(if $(CI),-q,)

.PHONY: help browser services constraints demo test test-quick test-team test-containers fuzz lint audit bench install label-studio clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.done ## install the backend into .venv
label-studio: $(LS_VENV)/.done ## install Label Studio into .venv-ls

$(VENV)/.done: requirements.txt pyproject.toml constraints.txt
	@echo "Installing the backend into $(VENV) (torch is the large part) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) --upgrade $(PIP)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -r requirements.txt
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

$(LS_VENV)/.done:
	@echo "Installing Label Studio $(LABEL_STUDIO) into $(LS_VENV) ..."
	$(PYTHON) -m venv $(LS_VENV)
	$(LS_VENV)/bin/pip install $(PIP_FLAGS) --upgrade $(PIP)
	$(LS_VENV)/bin/pip install $(PIP_FLAGS) label-studio==$(LABEL_STUDIO)
	@touch $@

# The browser tests look at Label Studio's pages; Debian and Ubuntu have the browser as a package.
browser: ## install chromium, where apt-get can
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || test -n "$$MMAL_CHROMIUM" || { \
		echo "Installing chromium for the browser tests ..."; \
		SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq chromium >/dev/null; } || { \
		echo "Install chromium, or set MMAL_CHROMIUM to a Chromium or Chrome."; exit 1; }

# Tests start PostgreSQL and Redis of their own, on loopback; Debian and Ubuntu have both as packages.
services: ## install PostgreSQL and Redis, where apt-get can
	@{ ls /usr/lib/postgresql/*/bin/initdb || command -v initdb; } >/dev/null 2>&1 && command -v redis-server >/dev/null || { \
		echo "Installing PostgreSQL and Redis for the tests ..."; \
		SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq postgresql redis-server >/dev/null; } || { \
		echo "Install postgresql and redis-server."; exit 1; }

demo: install label-studio ## Label Studio and the backend on real tasks; ANNOTATE=120 adds a scripted annotator
	@$(BIN)/python -m scripts.demo $(if $(ANNOTATE),--annotate $(ANNOTATE),)

test: install label-studio browser services ## all tests, the live ones against real Label Studio included
	$(BIN)/pytest -n 2 --dist loadfile

# Left out: what starts no backend and looks at Label Studio's pages or its start only.
WITHOUT_STORE := tests/live/test_local_label_studio.py tests/live/test_pair_templates.py tests/live/test_label_stream.py

test-team: install label-studio browser services ## the live tests on PostgreSQL and Redis, Label Studio on PostgreSQL too
	MMAL_TEST_STORE=postgresql $(BIN)/pytest -n 2 --dist loadfile -m live $(WITHOUT_STORE:%=--ignore=%)

test-quick: install services ## the tests that start no Label Studio
	$(BIN)/pytest -n 2 -m "not live and not slow"

test-containers: install ## docker-compose.yml in a container engine; needs `docker compose` and what it pulls
	docker build --tag mmal-backend .
	$(BIN)/pytest -v tests/containers

fuzz: install ## many more requests to every route than the tests send; CASES=2000
	MMAL_FUZZ_CASES=$(or $(CASES),2000) $(BIN)/pytest -q tests/server/test_fuzzing.py tests/labelstudio/test_any_json.py

# Without the name of the build, such as +cpu: which there is depends on the index.
constraints: ## install the newest versions that are allowed and write them down in constraints.txt; then run the tests
	$(BIN)/pip install $(PIP_FLAGS) --upgrade --upgrade-strategy eager -r requirements.txt
	$(BIN)/pip install $(PIP_FLAGS) --upgrade --upgrade-strategy eager -e '.[dev]'
	{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed -E 's/\+[a-z0-9]+$$//'; } > constraints.new
	mv constraints.new constraints.txt

audit: install ## ask an advisory service about every installed package; says so where none can be asked
	$(BIN)/python -m scripts.audit

lint: install audit ## ruff, mypy, hadolint and the audit of dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

bench: install label-studio ## every benchmark, smallest settings
	$(BIN)/python -m benchmarks

clean: ## remove the demo's data and all caches (the environments stay)
	rm -rf .demo .cache .pytest_cache .mypy_cache .ruff_cache
