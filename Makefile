# make demo         train a small network at three batch sizes, here and now, and see what it costs
# make test         what continuous integration checks
# make constraints  remake the lock of dependencies, constraints.txt
# make clean        remove the environment and everything made by tools; results stay
#
# make PYTHON=python3.12 VENV=.venv312 test   the same with another Python, in an environment of its own

PYTHON ?= python3
VENV ?= .venv
# Files in order of name: xdist would leave those of few tests for the end, and some of these take longest.
PYTEST_ARGS ?= -n auto --dist loadfile --no-loadscope-reorder

# The Pythons that constraints.txt is made with.
PYTHON311 ?= python3.11
PYTHON312 ?= python3.12

BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet --quiet
SPEC := setup.cfg pyproject.toml constraints.txt
LOCK := build/lock
EXAMPLE := examples/energybench-example

.PHONY: help demo test constraints clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.installed-demo
	@$(BIN)/python -m energybench experiment=demo

test: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@MYPYPATH=$(EXAMPLE) $(BIN)/mypy -p energybench_example
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

$(VENV)/.installed-demo: $(VENV)/.created $(SPEC)
	@echo "installing energybench with MXNet and MLflow into $(VENV) (the first time takes some minutes)"
	@$(BIN)/python $(PIP) install -c constraints.txt -e '.[gluon,mlflow,report]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created $(SPEC)
	@echo "installing energybench with MXNet, PyTorch, MLflow and the test tools into $(VENV) (the first time takes some minutes)"
	@$(BIN)/python $(PIP) install -c constraints.txt -e '.[gluon,mlflow,report,test]'
	@touch $(VENV)/.installed-demo $@

# $(call create,PYTHON,FOLDER,VARIABLE,VERSIONS): a virtual environment, or why there can be none and what to do.
define create
	@$(1) -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(4)".split())' 2>/dev/null || { \
	  echo "$(1) is no Python $(4); name one, as in: make $(3)=python$(firstword $(4)) $(MAKECMDGOALS)" >&2; exit 1; }
	@$(1) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(1) cannot create virtual environments: its module ensurepip is missing." >&2; \
	  echo "On Debian and Ubuntu it is in a package of its own: apt-get install python3-venv" >&2; exit 1; }
	@$(1) -m venv $(2)
endef

$(VENV)/.created:
	$(call create,$(PYTHON),$(VENV),PYTHON,3.11 or 3.12)
	@touch $@

constraints:
	@rm -rf $(LOCK)
	$(call create,$(PYTHON311),$(LOCK)/3.11,PYTHON311,3.11)
	$(call create,$(PYTHON312),$(LOCK)/3.12,PYTHON312,3.12)
	@for version in 3.11 3.12; do \
	  echo "installing with Python $$version" && \
	  $(LOCK)/$$version/bin/python $(PIP) install -e '.[gluon,mlflow,report,test]' && \
	  $(LOCK)/$$version/bin/python $(PIP) freeze --exclude-editable > $(LOCK)/$$version.txt || exit 1; \
	done
	@$(LOCK)/3.11/bin/python .ci/merge_freezes.py 3.11=$(LOCK)/3.11.txt 3.12=$(LOCK)/3.12.txt > $(LOCK)/constraints.txt
	@mv $(LOCK)/constraints.txt constraints.txt
	@rm -rf $(LOCK)

clean:
	rm -rf $(VENV) build dist energybench.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
