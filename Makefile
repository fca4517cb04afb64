# The commands of the README. All bring uv where it is missing: into .uv/ of this checkout, from PyPI.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)

.PHONY: image demo test disasters consumers slow docs check native fuzz
# Without the tools of the developers.
demo: $(UV)
	@$(UV) run --no-project python tools/native.py --no-dev
	@$(UV) run --no-dev taskbridge demo

# Libraries are compiled beforehand, not by each process of the tests. ARGUMENTS go to pytest.
test: native
	@$(UV) run --compile-bytecode pytest $(ARGUMENTS)

# Brokers, workers, disks and topics killed, frozen, filled up and lost, and all that is built anew after it.
disasters: native
	@$(UV) run --compile-bytecode pytest -m disasters tests/chaos tests/integration $(ARGUMENTS)

# The examples of all languages and of the data platform, built and run beside a real bridge; the Helm chart, rendered.
consumers: native
	@$(UV) run pytest -m consumers -n 2 tests/integration $(ARGUMENTS)

# Both, in one run: what waits in the one and what computes in the other stand side by side.
slow: native
	@$(UV) run --compile-bytecode pytest -m "disasters or consumers" tests/chaos tests/integration $(ARGUMENTS)

# The image of both services, taskbridge:latest; ARGUMENTS go to docker build. Needs uv, cargo and Docker.
image: native
	@$(UV) run python tools/image.py $(ARGUMENTS)

# The reference anew from the code, then the whole site, in site/. Dead links fail, and what is loaded from elsewhere.
docs: $(UV)
	@$(UV) run python tools/reference.py
	@$(UV) run --group docs zensical build --strict --clean
	@$(UV) run python tools/site_loads.py

# Everything that must be clean before a commit, beside the tests.
check: native
	@$(UV) run python tools/checks.py

# What is installed, with the native core where it can be built; anew where its sources have changed.
native: $(UV)
	@$(UV) run --no-project python tools/native.py

# The edge's core beside any bytes, for a bounded time: cargo install cargo-fuzz, with a nightly toolchain. What is new goes
# into native/fuzz/found, what fails into native/fuzz/artifacts.
FUZZ_SECONDS := 60
fuzz:
	@mkdir -p native/fuzz/found
	@cd native && cargo +nightly fuzz run decide fuzz/found fuzz/corpus/decide -- \
		-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -dict=fuzz/decide.dict

.uv/bin/uv:
	@echo "bringing uv into .uv/"
	@python3 -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
