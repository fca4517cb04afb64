# The commands of the README. All install uv from PyPI into .uv/ of this checkout where it is missing.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
# Developers' packages are in groups: a user's `uv run` installs none of them.
RUN := $(UV) run --group dev

.PHONY: image demo test disasters consumers slow nightly kubernetes everything upgrade-test release docs check native fuzz prerequisites
demo: NEEDS := demo
demo: $(UV)
	@$(UV) run --no-project python tools/native.py
	@$(UV) run taskbridge demo

# Libraries are compiled once, not by each process of the tests. ARGUMENTS go to pytest.
test: NEEDS = $(if $(SLOW),slow,test)
test: native
	@$(RUN) --compile-bytecode pytest $(if $(SLOW),-n 4 -m "not nightly and not kubernetes") $(ARGUMENTS)

# Brokers, workers, disks and topics are killed, frozen, filled and lost, and everything is rebuilt.
disasters consumers slow nightly kubernetes everything upgrade-test: NEEDS := slow
disasters: native
	@$(RUN) --compile-bytecode pytest -m "disasters and not nightly" tests/chaos tests/integration $(ARGUMENTS)

# The examples of other languages (Go and Spring: make nightly) and of the data platform, built and run against a real
# bridge; the Helm chart, rendered; the wheels, installed; the commands of the documents, typed.
consumers: native
	@$(RUN) pytest -m "consumers and not nightly" -n 2 tests/integration tests/unit/packaging $(ARGUMENTS)

# Both, in one run, by three processes: two leave half of two cores idle, and under more, clients and brokers time out.
# Then the cluster, alone. Without root its tests are skipped, with this reason.
slow: native
	@$(RUN) --compile-bytecode pytest -n 3 -m "(disasters or consumers) and not nightly" tests/chaos tests/integration tests/unit/packaging $(ARGUMENTS)
	$(if $(ARGUMENTS),,@$(MAKE) --no-print-directory kubernetes)

# Every case of what `make test` and `make slow` prove with one case, such as each single ACL.
nightly: native
	@$(RUN) --compile-bytecode pytest -n 2 -m nightly $(ARGUMENTS)

# The chart with every part on a real Kubernetes, as root, upgraded from the last release or from FROM=COMMIT; the first
# time Kubernetes is built, which takes some minutes.
kubernetes: native
	@$(if $(FROM),TASKBRIDGE_UPGRADE_FROM=$(FROM)) $(RUN) --compile-bytecode pytest -n 0 -m kubernetes -rs --durations=20 \
		tests/integration/test_kubernetes.py $(ARGUMENTS)

# All checks and all tests: before a release.
everything: SLOW := 1
everything: check docs test nightly kubernetes

# The artifacts of the last release, or of FROM=COMMIT, are replaced by this commit's, below running services with data.
upgrade-test: native
	@$(if $(FROM),TASKBRIDGE_UPGRADE_FROM=$(FROM)) $(RUN) --compile-bytecode pytest -n 0 -s -m nightly \
		tests/chaos/test_upgrade_in_place.py $(ARGUMENTS)

# All artifacts of a release, in dist/: RELEASING.md. ARGUMENTS go to tools/release; the image needs root and mmdebstrap.
release: $(UV)
	@PYTHONPATH=tools $(UV) run --only-group release python -m release $(ARGUMENTS)

# The image of all services, taskbridge:latest; ARGUMENTS go to docker build. Needs uv, cargo and Docker.
image: native
	@$(RUN) python tools/image.py $(ARGUMENTS)

# The reference from the code, then the whole site, in site/. Dead links and content from other hosts fail.
docs: $(UV)
	@$(RUN) python tools/reference.py
	@$(RUN) --group docs zensical build --strict --clean
	@$(RUN) python tools/site_loads.py

# All static checks: must be clean before a commit.
check: native
	@$(RUN) python tools/checks.py

# The environment, with the native core where it can be built; rebuilt when its sources changed.
native: $(UV)
	@$(UV) run --no-project python tools/native.py --group dev

# Random bytes for the edge's native core, for a bounded time: tools/mutation/README.md. New inputs go
# to native/fuzz/found, failures to native/fuzz/artifacts.
FUZZ_SECONDS := 60
fuzz:
	@mkdir -p native/fuzz/found
	@cd native && cargo +nightly fuzz run decide fuzz/found fuzz/corpus/decide -- \
		-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -dict=fuzz/decide.dict

# Before anything is fetched: check what the command needs of this machine.
$(UV): | prerequisites
prerequisites:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' || \
		{ echo "Python is missing or too old: taskbridge needs 3.11 or newer, as python3"; exit 1; }
	@python3 tools/prerequisites.py $(NEEDS)

.uv/bin/uv:
	@echo "installing uv into .uv/"
	@python3 -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
