# The commands of the README. All bring uv where it is missing: into .uv/ of this checkout, from PyPI.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
# What the developers' commands need is in groups: a user's `uv run` installs none of it.
RUN := $(UV) run --group dev

.PHONY: image demo test disasters consumers slow docs check native fuzz prerequisites
demo: NEEDS := demo
demo: $(UV)
	@$(UV) run --no-project python tools/native.py
	@$(UV) run taskbridge demo

# Libraries are compiled beforehand, not by each process of the tests. ARGUMENTS go to pytest.
test: NEEDS := test
test: native
	@$(RUN) --compile-bytecode pytest $(ARGUMENTS)

# Brokers, workers, disks and topics killed, frozen, filled up and lost, and all that is built anew after it.
disasters consumers slow: NEEDS := slow
disasters: native
	@$(RUN) --compile-bytecode pytest -m disasters tests/chaos tests/integration $(ARGUMENTS)

# The examples of all languages and of the data platform, built and run beside a real bridge; the Helm chart, rendered.
consumers: native
	@$(RUN) pytest -m consumers -n 2 tests/integration $(ARGUMENTS)

# Both, in one run: what waits in the one and what computes in the other stand side by side.
slow: native
	@$(RUN) --compile-bytecode pytest -m "disasters or consumers" tests/chaos tests/integration $(ARGUMENTS)

# The image of both services, taskbridge:latest; ARGUMENTS go to docker build. Needs uv, cargo and Docker.
image: native
	@$(RUN) python tools/image.py $(ARGUMENTS)

# The reference anew from the code, then the whole site, in site/. Dead links fail, and what is loaded from elsewhere.
docs: $(UV)
	@$(RUN) python tools/reference.py
	@$(RUN) --group docs zensical build --strict --clean
	@$(RUN) python tools/site_loads.py

# Everything that must be clean before a commit, beside the tests.
check: native
	@$(RUN) python tools/checks.py

# What is installed, with the native core where it can be built; anew where its sources have changed.
native: $(UV)
	@$(UV) run --no-project python tools/native.py --group dev

# The edge's core beside any bytes, for a bounded time: cargo install cargo-fuzz, with a nightly toolchain. What is new goes
# into native/fuzz/found, what fails into native/fuzz/artifacts.
FUZZ_SECONDS := 60
fuzz:
	@mkdir -p native/fuzz/found
	@cd native && cargo +nightly fuzz run decide fuzz/found fuzz/corpus/decide -- \
		-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -dict=fuzz/decide.dict

# Before uv is brought and anything is fetched: what the command needs of this machine.
$(UV): | prerequisites
prerequisites:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' || \
		{ echo "Python is missing or too old: taskbridge needs 3.11 or newer, as python3"; exit 1; }
	@python3 tools/prerequisites.py $(NEEDS)

.uv/bin/uv:
	@echo "bringing uv into .uv/"
	@python3 -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
