# `make` alone prints what there is. Everything runs in the virtual environment .venv.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help install run test test-slow lint golden images bench docs constraints clean clean-state

help: ## Print this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo 'Settings:'
	@echo '  ARGS="…"        passed on: make run ARGS="--scenario video --data PATH"'
	@echo '  PYTHON=python3  the interpreter to build .venv from (3.11 or newer)'
	@echo '  PIP_INDEX_URL, PIP_EXTRA_INDEX_URL: pip takes packages from there. On Linux the default index'
	@echo '                  has torch with CUDA (several GB); give an index with CPU builds to avoid it.'
	@echo '  MTREC_DATA      folder of the public data sets that some tests read; skipped without it'

install: $(STAMP) ## Make .venv and install mtrec into it (once)

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo 'mtrec: no Python 3.11 or newer with venv found; install one, or give PYTHON=/path/to/python3' >&2; \
		exit 2; fi
	@if [ ! -x $(BIN)/python ]; then echo "Making $(VENV) from $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); fi
	@echo 'Installing mtrec and its tools (a few minutes the first time)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

run: $(STAMP) ## Run the whole training pipeline (ARGS="--scenario video --data PATH")
	@$(BIN)/mtrec run $(ARGS)

test: $(STAMP) ## Run the tests, two at a time, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(ARGS)

test-slow: $(STAMP) ## Run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

golden: $(STAMP) ## Renew the golden pipelines, manifests and loss curves; look at the difference before you commit it
	for name in training monitoring search; do \
		$(BIN)/mtrec compile --pipeline $$name --output tests/golden/$${name}_pipeline.yaml && \
		$(BIN)/mtrec compile --pipeline $$name --cluster k8s/cluster/cluster.yaml \
			--output tests/golden/$${name}_cluster.yaml || exit; done
	$(BIN)/python -m tests.model.test_golden_losses tests/golden/losses.json
	$(BIN)/python -m tests.k8s.render
	-@git --no-pager diff --stat -- tests/golden

images: ## Build the container images with docker, podman or buildah (TARGETS="slim cuda mlflow" REGISTRY=host/path)
	@components/build_images.sh

bench: $(STAMP) ## Measure quality against the baselines (needs MTREC_DATA)
	$(BIN)/python -m benchmarks.quality $(ARGS)

docs: $(STAMP) ## Renew docs/cli.md, scenario.md and cluster-file.md from the code
	$(BIN)/python -m pipelines.reference docs

constraints: $(STAMP) ## Renew constraints.txt from what .venv holds
	@{ sed -n '/^#/p' constraints.txt; \
		$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove .venv, build and cache files; .mtrec stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info src/*.egg-info
	find . -name .mtrec -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-state: ## Remove .mtrec: registry, reports, versioned data (asks first; YES=1 does not)
	@if [ -e .mtrec ] && [ "$(YES)" != 1 ]; then \
		printf 'Remove .mtrec with every registered model, report and data version? [y/N] '; read -r answer || echo; \
		case "$$answer" in y|Y|yes) ;; *) echo 'Nothing was removed.'; exit 1;; esac; fi
	rm -rf .mtrec
