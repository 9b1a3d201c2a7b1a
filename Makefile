# Homeport's commands. `make run` on a fresh Debian needs only Python 3.11, make, root and the package registries.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STATE := $(VENV)/.installed
# For every platform and every Python from 3.11 on, in one version, and without an index's address.
LOCK = $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-build --no-annotate --python-version 3.11 \
	--fork-strategy fewest --custom-compile-command 'make lock' \
	$(if $(filter all,$(RAISE)),--upgrade,$(RAISE:%=--upgrade-package=%))
PURE := chalicelib/session/*,chalicelib/bundle/*,chalicelib/notebook/*,chalicelib/repository/*,chalicelib/metrics.py,chalicelib/tracing.py,chalicelib/text.py,chalicelib/errors.py,chalicelib/environment.py

.DEFAULT_GOAL := help
.PHONY: help setup setup-apt setup-test-apt setup-bench-apt venv lock run demo test test-unit test-functional test-integration test-browser \
	chaos coverage lint format docs bench preflight resources api deploy package rollback destroy stage \
	doctor close open rotate clean

help: ## Say what can be made
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26

setup: ## Install what `make run` needs: Debian packages (as root) and the virtual environment, both at once
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory setup-apt
	@$(MAKE) --silent --no-print-directory -j2 setup-apt $(STATE)/local

venv: $(STATE)/dev

$(STATE)/%: requirements-%.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Homeport needs Python 3.11 or later; name one: make PYTHON=python3.11 …' >&2; exit 1; }
	@test -x $(RUN) || { echo 'Making the virtual environment $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@echo 'Installing what requirements-$*.txt locks (a minute or so)'
	@# --no-compile: what is never imported need not be compiled; it halves the time
	@$(RUN) -m pip install -qq --no-compile --disable-pip-version-check --require-hashes --only-binary=:all: -r $<
	@mkdir -p $(STATE) && touch $@

lock: venv ## Lock pyproject.toml's dependencies with their hashes; RAISE="name …" or RAISE=all raises what they need
	$(LOCK) --group dev -o requirements-dev.txt
	$(LOCK) --group local -c requirements-dev.txt -o requirements-local.txt
	$(LOCK) --group lambda -c requirements-dev.txt -o requirements-lambda.txt
	$(LOCK) --group proxy -c requirements-dev.txt -o proxy/requirements.txt
	$(LOCK) --group image -c requirements-dev.txt -o local/requirements-image.txt
	$(LOCK) --group builder -c requirements-dev.txt -o local/requirements-builder.txt
	$(LOCK) --group runtime -c requirements-dev.txt -o tests/requirements-runtime.txt
	$(LOCK) --group checkov -o tests/requirements-checkov.txt
	$(LOCK) --group peers -c requirements-dev.txt -c local/requirements-image.txt -o bench/requirements-peers.txt

setup-apt:
	@PYTHON=$(PYTHON) ./local/install.sh run

setup-test-apt:
	@PYTHON=$(PYTHON) ./local/install.sh test

setup-bench-apt:
	@PYTHON=$(PYTHON) ./local/install.sh bench

run: setup ## Run the whole of Homeport on this machine, until Ctrl-C
	@exec $(RUN) -m local.run

demo: setup ## Show the whole path without a browser, on the running stack or on one of its own; REPO=address: a repository's
	@exec $(RUN) -m local.demo

test: setup-test-apt venv ## Run every test there is, on real parts; one process has these, the other all else
	$(RUN) -m pytest tests --numprocesses=2 --dist=loadscope

test-unit: venv ## Test the pure modules: touches nothing, takes seconds
	$(RUN) -m pytest tests/unit

test-functional: venv ## Test against embedded AWS and local TLS servers
	$(RUN) -m pytest tests/functional

test-integration: setup-test-apt venv ## Test on a real engine, HAProxy and JupyterLab
	$(RUN) -m pytest tests/integration

test-browser: setup-test-apt venv ## Test the pages in Chromium
	$(RUN) -m pytest tests/browser

chaos: setup-test-apt venv ## Kill launchers at every instruction on a real engine: make chaos SEEDS=1000; SEED=17 repeats one
	$(RUN) -m tests.chaos $(SEEDS:%=--seeds %) $(SEED:%=--seed %)

coverage: setup-test-apt venv ## Measure the branch coverage of every test; the pure wings' has to be whole
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest tests
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report
	$(RUN) -m coverage report --include='$(PURE)' --fail-under=100

lint: venv ## Check style, types and imports, and that no private key is in the repository
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports
	@if git rev-parse --git-dir >/dev/null 2>&1; then $(VENV)/bin/pre-commit run detect-private-key --all-files; \
	else echo 'This is no git checkout: private keys are not looked for'; fi

format: venv ## Put the code into its style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: venv ## Generate what the documentation takes from the code
	$(RUN) -m docs.generate

bench: setup-bench-apt venv ## Measure launches and proxy beside their peers, and more, for docs/benchmarks.md; PART="launch …": those
	$(RUN) -m bench $(PART)

preflight: venv stage ## Look at what a deployment needs, and change nothing: make preflight STAGE=prod
	$(RUN) -m infra.preflight --stage $(STAGE)

resources: venv stage ## Make what the functions need, for `chalice deploy` and `chalice package`: make resources STAGE=prod
	$(RUN) -m infra.deploy --resources --stage $(STAGE)

api: venv stage ## Set what `chalice deploy` leaves out of the API, and remove what its functions read no more: make api STAGE=prod
	$(RUN) -m infra.deploy --api --stage $(STAGE)

deploy: venv stage ## Deploy to AWS, all of it: make deploy STAGE=prod
	$(RUN) -m infra.deploy --stage $(STAGE)

package: venv stage ## Package for CloudFormation alone: make package STAGE=prod OUT=build/prod
	@test -n "$(OUT)" || { echo 'Name a folder: make package STAGE=$(STAGE) OUT=build/$(STAGE)' >&2; exit 1; }
	$(RUN) -m infra.package --stage $(STAGE) --out $(OUT)

rollback: venv stage ## List what was deployed, or deploy it again: make rollback STAGE=prod TO=<hash>
	$(RUN) -m infra.rollback --stage $(STAGE) $(TO:%=--to %)

destroy: venv stage ## Take a stage away, after asking for its name: make destroy STAGE=prod
	$(RUN) -m infra.destroy --stage $(STAGE)

stage:
	@test -n "$(STAGE)" || { echo 'Name the stage, such as STAGE=prod' >&2; exit 1; }

doctor: venv stage ## Look at a stage and say what is wrong and how to mend it: make doctor STAGE=prod; WHERE=inside asks AWS alone
	$(RUN) -m infra.doctor --stage $(STAGE) $(WHERE:%=--where %)

close: venv stage ## Let nobody launch on a stage: make close STAGE=prod MESSAGE='We are moving. Back at noon.'
	@$(RUN) -m infra.door --stage $(STAGE) --close "$$MESSAGE"  # what is said on the command line is exported

open: venv stage ## Let visitors launch on a stage again: make open STAGE=prod
	@$(RUN) -m infra.door --stage $(STAGE)

rotate: venv stage ## Replace one of the hub's CAs, notebook or client, step by step: make rotate STAGE=prod CA=client STEP=begin
	@test -n "$(CA)" -a -n "$(STEP)" || { echo 'Say CA=notebook or CA=client, and STEP=begin, switch or end' >&2; exit 1; }
	$(RUN) -m infra.rotate --stage $(STAGE) --ca $(CA) --step $(STEP) $(if $(FORCE),--force)

clean: ## Remove the virtual environment, the state of `make run`, and what the tools left
	rm -rf $(VENV) .homeport .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis .coverage .coverage.* build vendor
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
