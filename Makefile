# Everything starts here: `make run` serves a trained network, `make test` proves the code.
# Both work from a bare clone and install what they need into .venv.
PYTHON ?= python3
VENV   ?= .venv
STORE  ?= lmdb://var/store
BUNDLE ?= var/models

py := $(VENV)/bin/python

# HOST=…, PORT=… and ADMIN_PORT=… override QIN_HOST, QIN_PORT and QIN_ADMIN_PORT.
at := $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))
admin := $(if $(ADMIN_PORT),QIN_ADMIN_PORT=$(ADMIN_PORT))

# Made by `make run` if missing; $(wildcard) is empty without a published bundle.
DATA       := var/data
CHECKPOINT := var/checkpoints/taste
PLAIN      := var/checkpoints/plain
COMPARED   := var/checkpoints/compared.txt
SIZES      := --preset taste
FIT        := --preset demo --epochs 2
published  := $(wildcard $(BUNDLE)/manifest.json $(BUNDLE)/*/manifest.json)

# The encoder that `make demo-text` has built, or another one; none is made by `make run`.
ENCODER    ?= $(or $(QIN_ENCODER),$(patsubst %/manifest.json,%,$(wildcard var/encoders/words/manifest.json)))
encoder    := $(if $(ENCODER),QIN_ENCODER=$(ENCODER))

# Made by `make demo-text` if missing. Of CORPUS, the first two languages count.
TEXT       := var/text
CORPUS     := --languages en,de
ENCODE     := --preset demo
BUILD      := --longest 8192
ITEMS      :=
CONTENT    := --size 128
TEXT_FIT   := --preset demo --epochs 3
texts      := $(TEXT)/data/item_text.parquet
contents   := $(TEXT)/data/item_info.parquet
content     = $(py) -m text info var/encoders/words --json | $(py) -c 'import json, sys; c = json.load(sys.stdin)["content"]; print(c["feature"], c["digest"], sep=":")'

# Without compiling all of torch: what is imported is compiled then.
install := $(VENV)/bin/pip install --disable-pip-version-check --no-compile -c constraints.txt
extra   := timeout 180 $(install) --timeout 10 --retries 1 -e
has     := $(py) -c 'import sys; from importlib.util import find_spec; sys.exit(None in map(find_spec, sys.argv[1:]))'

.PHONY: help run demo demo-text bundle setup setup-runtime serve test test-extras test-collect lint format bench fuzz pressure clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | expand -t 16

setup: $(VENV)/.ready  ## create .venv with all pinned dependencies
setup-runtime: $(VENV)/.ready-runtime  ## create .venv with what serving needs, without torch

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh tests/ensure_debian.sh python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(install) --progress-bar on -e '.[runtime,tracing,training,text,tune,tensorboard,dev]'
	@touch $@ $(VENV)/.ready-runtime

$(VENV)/.ready-runtime: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(install) --progress-bar on -e '.[runtime]'
	@touch $@

run: setup $(if $(published),,bundle) $(DATA)/user_info.parquet  ## make data, train, export, load the store; then serve and print a request with its answer
	$(py) -m feature_store load $(STORE) --schema $(DATA)/schema.yaml \
	  --items $(DATA)/item_info.parquet --items $(DATA)/item_feature.parquet \
	  --histories $(DATA)/valid.parquet --histories $(DATA)/test.parquet --users $(DATA)/user_info.parquet
	@test ! -f $(COMPARED) || cat $(COMPARED)
	$(admin) $(encoder) $(py) -m service serve --bundle $(BUNDLE) --store $(STORE) $(at) --example

demo: bundle  ## train on synthetic data, with and without user and request features, and publish a bundle
	@cat $(COMPARED)

bundle: setup $(COMPARED)
	$(py) -m training evaluate $(CHECKPOINT) $(DATA)
	$(py) -m model_export build $(CHECKPOINT) --out $(BUNDLE)
	for bundle in $(BUNDLE)/*/; do $(py) -m model_export verify "$$bundle" || exit 1; done

$(DATA)/user_info.parquet: | setup
	$(py) -m training synthesize $(DATA) $(SIZES)

$(CHECKPOINT)/config.json: | $(DATA)/user_info.parquet
	$(py) -m training fit $(DATA) $(FIT) --out $(CHECKPOINT)

$(PLAIN)/config.json: | $(DATA)/user_info.parquet
	$(py) -m training fit $(DATA) $(FIT) --schema $(DATA)/plain.yaml --out $(PLAIN)

$(COMPARED): | $(CHECKPOINT)/config.json $(PLAIN)/config.json
	$(py) -m training compare $(CHECKPOINT) $(PLAIN) $(DATA) > $@.partial && mv $@.partial $@

demo-text: setup $(TEXT)/models/words/manifest.json  ## train a text encoder and a model on packages with real words; serve both, put items in by German texts and score them (most of the time is for training)
	$(py) -m feature_store load lmdb://$(TEXT)/store --schema $(TEXT)/data/schema.yaml \
	  --items $(contents) --items $(TEXT)/data/item_feature.parquet \
	  --histories $(TEXT)/data/valid.parquet --histories $(TEXT)/data/test.parquet
	$(admin) QIN_ENCODER=var/encoders/words $(py) -m service serve --bundle $(TEXT)/models --store lmdb://$(TEXT)/store $(at) --example

$(TEXT)/corpus/corpus.json: | setup
	$(py) -m text corpus build $(TEXT)/corpus $(CORPUS)

$(TEXT)/encoder/config.json: | $(TEXT)/corpus/corpus.json
	$(py) -m text fit $(TEXT)/corpus --out $(TEXT)/encoder $(ENCODE)

$(texts): | $(TEXT)/corpus/corpus.json
	$(py) -m training synthesize $(TEXT)/data --catalogue $(TEXT)/corpus $(ITEMS)

$(TEXT)/plain/words/manifest.json: | $(TEXT)/encoder/config.json
	$(py) -m text build $(TEXT)/encoder --out $(TEXT)/plain --version words $(BUILD)

$(TEXT)/map.npz: | $(TEXT)/plain/words/manifest.json $(texts)
	$(py) -m text content fit $(TEXT)/plain/words $(texts) $(CONTENT) --out $@

var/encoders/words/manifest.json: | $(TEXT)/map.npz
	$(py) -m text build $(TEXT)/encoder --content $(TEXT)/map.npz --out var/encoders --version words $(BUILD)

$(contents): | var/encoders/words/manifest.json $(texts)
	$(py) -m text embed var/encoders/words $(texts) --out $@

$(TEXT)/qin/config.json: | $(contents)
	$(py) -m training fit $(TEXT)/data $(TEXT_FIT) --out $(TEXT)/qin

$(TEXT)/models/words/manifest.json: | $(TEXT)/qin/config.json
	$(py) -m training evaluate $(TEXT)/qin $(TEXT)/data
	$(py) -m model_export build $(TEXT)/qin --out $(TEXT)/models --version words --content "$$($(content))"

serve: setup-runtime  ## serve BUNDLE=… with STORE=… (HOST=…, PORT=…, ADMIN_PORT=…); needs no torch
	$(admin) $(py) -m service serve --bundle $(BUNDLE) --store $(STORE) $(at)

# Side by side: mypy has one core, and with a cold cache 36 s to do.
test: setup  ## run lint, then every test
	@$(MAKE) --no-print-directory -j3 --output-sync=target lint test-extras test-collect
	$(py) -m pytest -n 4 --dist loadfile --no-loadscope-reorder --reruns 2 -r R -m 'not alone'
	$(py) -m pytest --reruns 2 -r R -m alone $$(grep -rl 'mark\.alone' tests --include='test_*.py')

test-extras: setup
	@sh tests/ensure_debian.sh redis-server redis-server
	@sh tests/ensure_debian.sh chromium chromium
	@$(has) onnxruntime_ep_openvino playwright axe_playwright_python ray moto flask_cors || \
	  $(extra) '.[openvino,browser,ray,batch-peers]' || true
	@$(has) onnxruntime_ep_openvino || $(extra) '.[openvino]' || \
	  echo "the extra openvino was not installed: its tests are skipped"
	@$(has) playwright axe_playwright_python || $(extra) '.[browser]' || \
	  echo "the extra browser was not installed: its tests are skipped"
	@$(has) ray || $(extra) '.[ray]' || \
	  echo "the extra ray was not installed: its tests are skipped"
	@$(has) moto flask_cors || $(extra) '.[batch-peers]' || \
	  echo "the extra batch-peers was not installed: its tests are skipped"

# Compiles what tests import, which each worker would do for itself; what does not import, they tell.
test-collect: setup
	@$(py) -m pytest --collect-only -qq >/dev/null 2>&1 || true

lint: setup  ## run ruff (lint and format), mypy --strict, the docs check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PYTHONPATH=. $(py) docs/check.py

bench: setup  ## measure training and the folded graphs, as JSON; write docs/performance.md
	$(py) -m training bench --json
	$(py) -m model_export bench --json --report docs/performance.md
	$(py) -m model_export bench-top-k --json

fuzz: setup  ## send at least 10,000 generated requests and check every answer against the OpenAPI document
	$(py) -m tests.service.fuzz --cases 10000

pressure: setup  ## measure the service under overload, as JSON (ten minutes, two idle cores)
	$(py) -m tests.service.pressure --json

format: setup  ## let ruff format and fix
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## delete var/: data, checkpoints, bundles, stores
	rm -rf var
