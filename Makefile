# agent-cni. Every target installs what it needs first; `make` alone lists them.

PREFIX   ?= /opt/agent-cni
BIN_DIR  ?= /opt/cni/bin
CONF_DIR ?= /etc/cni/net.d
SYSTEMD  ?= $(if $(DESTDIR),,$(wildcard /run/systemd/system))
PLACE     = --prefix $(PREFIX) --bin-dir $(BIN_DIR) --conf-dir $(CONF_DIR) $(if $(DESTDIR),--root $(DESTDIR)) $(if $(FORCE),--force)
SOURCES  := $(shell find cni plugins conf.d launcher tools -type f -not -name '*.pyc') pyproject.toml constraints.txt
PLUGINS  := $(patsubst %.schema.json,%,$(wildcard plugins/*.schema.json))

.PHONY: help demo demo-mesh test crash-test check audit image-test kubelet-test collector-test kube-test podman-test consul-test reference-test policy-matrix reach-sweep bench wheels install uninstall clean nerdctl-test

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*##/\1\t/' | expand -t 12

demo: .venv/installed  ## three hosts and their etcd, pods, pings across; one joins late, one dies, told step by step
	@tools/isolated .venv/bin/python3 tools/demo.py

demo-mesh: .venv/ready ## two pods on two hosts, two Envoys, mutual TLS: their applications know nothing of it
	@tools/isolated .venv/bin/python3 tools/demo_mesh.py

test: .venv/ready      ## everything: style, types, tests/, and netns-tests/ with the node agent and without
	@$(MAKE) --no-print-directory check
	@.venv/bin/python3 tools/asked_again.py 2 tests
	@rm -rf .cache/transcripts
	@AGENT_CNI_MODE=cold .venv/bin/python3 tools/asked_again.py 6 --isolated netns-tests
	@AGENT_CNI_MODE=warm .venv/bin/python3 tools/asked_again.py 6 --isolated -m "not sweep and not long" netns-tests
	@.venv/bin/python3 tools/same_answers.py

crash-test: .venv/ready ## whatever can go wrong, enumerated (hours; goes on where it was ended): PARTS="killed failing" SEED= STORIES=substring
	@tools/bootstrap --atheris
	@.venv/bin/python3 tools/crash_test.py $(PARTS) $(if $(SEED),--seed $(SEED)) $(if $(STORIES),--stories "$(STORIES)")

check: .venv/ready     ## style and types
	@.venv/bin/ruff check --quiet . && .venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary cni
	@.venv/bin/mypy --no-error-summary --scripts-are-modules $(PLUGINS)

audit: .venv/ready     ## known vulnerabilities and licences of what we depend on, its bill of materials, the launcher analysed and run under sanitizers
	@tools/bootstrap --audit
	@.venv/bin/python3 tools/audit/audit.py
	@.venv/bin/python3 -m pytest tests/audit tests/launcher

image-test: .venv/ready ## bake a minimal Debian root twice, compare, and make a pod in it (part of test)
	@tools/isolated .venv/bin/python3 -m pytest netns-tests/installation/test_image.py

kubelet-test: .venv/ready ## build a kubelet from the Go module proxy (ten minutes, once) and run a static pod with it
	@tools/bootstrap --kubelet
	@tools/isolated .venv/bin/python3 -m pytest netns-tests/runtimes/test_kubelet.py

kube-test: .venv/ready ## Kubernetes on three nodes with our networks (builds it once, half an hour); NETWORKS="routed stored" PROXY=iptables FAMILIES=46, SPECS=Netpol its own specs
	@nice tools/kube/kube.py build
	@tools/kube/kube.py prepare
	@tools/isolated .venv/bin/python3 -m pytest netns-tests/cluster/test_kubernetes.py -k Real
	@for network in $(or $(NETWORKS),gateways routed policies joined stored); do \
		tools/kube/kube.py check --proxy $(or $(PROXY),nftables) --families $(or $(FAMILIES),4) $(if $(MANIFEST),--manifest $(MANIFEST)) $$network || exit; done
	@$(if $(SPECS),tools/kube/kube.py e2e --focus "$(SPECS)" $(if $(MANIFEST),--manifest $(MANIFEST)) $(lastword $(or $(NETWORKS),stored)))

collector-test: .venv/ready ## build an OpenTelemetry collector from the Go module proxy (minutes, once) and have the agent send it spans
	@tools/bootstrap --collector
	@tools/isolated .venv/bin/python3 -m pytest netns-tests/agent/test_spans.py

nerdctl-test: .venv/ready ## build nerdctl (some minutes, once), and have its containers find each other by name on our network
	@tools/bootstrap --nerdctl
	@tools/isolated .venv/bin/python3 -m pytest netns-tests/runtimes/test_nerdctl.py

podman-test: .venv/ready ## podman's own networks and containers, with our executables for its drivers
	@tools/bootstrap --podman
	@tools/isolated .venv/bin/python3 -m pytest netns-tests/runtimes/test_podman.py

consul-test: .venv/ready ## pods registered with a real Consul (builds it once from the Go module proxy, some minutes)
	@tools/bootstrap --consul
	@AGENT_CNI_MODE=cold tools/isolated .venv/bin/python3 -m pytest netns-tests/names/test_consul.py

reference-test: .venv/ready ## the reference plugins' own suites with our executables (five minutes); SUITES="bridge ptp" runs some
	@tools/bootstrap --reference-suites
	@.venv/bin/python3 tools/reference_test.py $(SUITES)

policy-matrix: .venv/ready ## policies that nobody would write, against all pairs of nine pods; EXAMPLES=200 SEED= (the same seed, the same policies)
	@EXAMPLES=$(or $(EXAMPLES),200) SEED=$(or $(SEED),$(shell date +%s)) AGENT_CNI_MODE=cold tools/isolated .venv/bin/python3 -m pytest -s netns-tests/policy/test_matrix.py -k nobody_would

reach-sweep: .venv/ready ## what `agent-cni reach` says beside what packets do, in random worlds with things broken; EXAMPLES=50 SEED= (the same seed, the same worlds)
	@WHOLE=1 EXAMPLES=$(or $(EXAMPLES),50) SEED=$(or $(SEED),$(shell date +%s)) AGENT_CNI_MODE=cold tools/isolated .venv/bin/python3 -m pytest --numprocesses 2 netns-tests/command/test_reach.py

bench: .venv/ready     ## our plugins against the reference's, paired in one run; PARTS=calls, together, traffic, cluster, policy, names, flows or kube does one part
	@tools/bootstrap --reference
	@tools/isolated .venv/bin/python3 tools/bench.py $(PARTS)

wheels:          ## what `make install WHEELS=folder` needs of PyPI, into WHEELS=folder
	@EXTRAS="$(EXTRAS)" tools/bootstrap --wheels "$(WHEELS)"

install:         ## PREFIX, BIN_DIR, CONF_DIR, DESTDIR, CONF=10-bridge-vxlan.conflist, SYSTEMD=0 or 1, FORCE=1, WHEELS=folder, EXTRAS=otlp
	@$(if $(DESTDIR),mkdir -p $(DESTDIR))
	@WHEELS="$(WHEELS)" EXTRAS="$(EXTRAS)" tools/install $(PLACE) --link $(if $(CONF),--conf $(CONF)) $(if $(filter-out 0,$(SYSTEMD)),--systemd)

uninstall:       ## take everything away again
	@if [ -x $(DESTDIR)$(PREFIX)/bin/python3 ]; then \
		$(DESTDIR)$(PREFIX)/bin/python3 -I -m cni.command.main uninstall $(PLACE); \
	else rm -rf "$(DESTDIR)$(dir $(PREFIX)).$(notdir $(PREFIX)).new"; echo "nothing is installed in $(DESTDIR)$(PREFIX)"; fi

clean:           ## remove what was built here
	rm -rf "$$(readlink -f .venv)" .venv .cache build dist

.venv/installed: $(SOURCES)
	@tools/bootstrap --demo
	@touch $@

.venv/ready: $(SOURCES)
	@tools/bootstrap
	@touch .venv/installed $@
