# offloadd: `make demo` shows it, `make test` tests it, `make` alone lists the rest.
# On a fresh Debian 12, as root, these two install what they miss (tools/prepare says what).

MAKEFLAGS += --no-print-directory
# tools/prepare puts a Go here if the machine's own is missing or too old.
export PATH := $(CURDIR)/bin/toolchain/bin:$(PATH)
FUZZTIME ?= 60s
TESTFLAGS ?=
KERNEL ?= uml
VMKERNELS ?= uml qemu
# Words of [kernel=]package:test. Those of GUESTTESTS are part of make test.
GUESTTESTS ?= ./pkg/tc:Kernel ./pkg/devlink:Kernel ./pkg/device:Simnic ./pkg/probe/path:TestKinds ./integration:TestMixedCluster/geneve ./integration/simnic:. \
	./integration/offload:Test(Matrix|SamePackets|Transfer|PolicyChange|Punts|Offloadctl) ./integration/offloadnic:TestInHardware
VMTESTS ?= $(filter-out ./integration/offload%,$(GUESTTESTS)) ./integration/offload:. ./integration/offloadnic:. ./integration:TestOffloadLost uml=./pkg/probe/path:TestKilled \
	./pkg/probe/path:TestWAN uml=./pkg/probe:TestRanking uml=./pkg/probe:TestLossyWire qemu=./integration/devports:. ./integration/storm:.
OPERATIONS ?= 10000
BASE ?= main
GENERATED = '*.gen.go' '*.pb.go' docs/api.md docs/reasons.md docs/offload.md docs/ports.md
GOLDEN = $$(go list -f '{{range .TestImports}}{{println $$.ImportPath .}}{{end}}{{range .XTestImports}}{{println $$.ImportPath .}}{{end}}' ./... | \
	sed -n 's|^\([^ ]*\) github.com/offloadd/offloadd/internal/golden$$|\1|p' | sort -u)

CNI = $(addprefix github.com/containernetworking/,cni/cnitool plugins/plugins/main/bridge plugins/plugins/main/host-device plugins/plugins/ipam/host-local)

.PHONY: help
help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: prepare build ## three nodes on this machine, two with offloadd, one with ovn-controller; KEEP=1 leaves them running
	@go run ./integration/demo -offloadd bin/offloadd $(if $(KEEP),-keep) $(DEMOFLAGS)

.PHONY: demo-clean
demo-clean: ## end what `make demo KEEP=1` left running
	@go run ./integration/demo -clean

.PHONY: demo-offload
demo-offload: prepare-vm build bin/vmrun ## two nodes in a guest kernel: how many packets TC filters forward, and how few Open vSwitch sees
	@CGO_ENABLED=0 go build -o bin/ ./integration/demo
	@bin/vmrun -kernel $(KERNEL) -timeout 15m -- $(CURDIR)/bin/demo -offload -offloadd $(CURDIR)/bin/offloadd -offloadctl $(CURDIR)/bin/offloadctl

.PHONY: demo-probe
demo-probe: prepare-vm build bin/vmrun ## what packets cost on all kinds of paths that this kernel can build, and on the others in a guest kernel; one report
	@CGO_ENABLED=0 go build -o bin/ ./integration/demoprobe
	@bin/demoprobe -offloadctl bin/offloadctl -kernel $(KERNEL) $(DEMOFLAGS)

.PHONY: test
test: test-native test-guest ## all tests: on this machine's kernel, then on that of a guest; GUEST=no says that there is none (root)

.PHONY: test-native
test-native: prepare ## tests on this machine's kernel, including those on real OVS and OVN in network namespaces (root)
	go test $(TESTFLAGS) ./cmd/... ./internal/... ./pkg/...
	go test $(TESTFLAGS) -p 1 ./integration/...

.PHONY: test-guest
test-guest: ## tests of Open vSwitch's kernel datapath, TC and the simulated NIC in a guest, a kernel in user mode, which is built at the first time (root)
ifeq ($(GUEST),no)
	@echo 'NOT TESTED, because of GUEST=no: $(GUESTTESTS)'
else
	@$(MAKE) test-vm VMKERNELS=uml VMTESTS='$(GUESTTESTS)'
endif

.PHONY: test-vm
test-vm: prepare-vm build bin/vmrun ## tests on the kernel datapath, in guests: VMTESTS ([kernel=]package:name ...) on VMKERNELS (uml qemu)
	@CGO_ENABLED=0 go build -tags faults -o bin/offloadd-faults ./cmd/offloadd
	@CGO_ENABLED=0 go build -modfile=tools/cni/go.mod -o bin/ github.com/containernetworking/cni/cnitool
	@set -e; for kernel in $(VMKERNELS); do SIMNIC=$$(go run ./integration/simnic/build -kernel $$kernel); export SIMNIC; for t in $(foreach t,$(VMTESTS),'$t'); do \
		case $$t in *=*) [ "$${t%%=*}" = $$kernel ] || continue; t=$${t#*=};; esac; \
		echo "== $$kernel: $$t"; \
		CGO_ENABLED=0 OFFLOADD=$(CURDIR)/bin/offloadd OFFLOADD_FAULTS=$(CURDIR)/bin/offloadd-faults CNIBIN=$(CURDIR)/bin go test -count=1 -timeout 65m $(TESTFLAGS) \
			-exec "$(CURDIR)/bin/vmrun -v -timeout 60m -kernel $$kernel --" -run "$${t#*:}" "$${t%%:*}"; \
	done; done

.PHONY: storm
storm: prepare prepare-vm build bin/vmrun ## OPERATIONS (10000) on ports at random while the daemon is killed: veths here, then VFs and SFs too in a guest
	OFFLOADD=$(CURDIR)/bin/offloadd go test -count=1 -v -timeout 4h ./integration/storm -storm.operations=$(OPERATIONS) $(STORMFLAGS)
	@SIMNIC=$$(go run ./integration/simnic/build -kernel $(KERNEL)) && export SIMNIC && \
		CGO_ENABLED=0 OFFLOADD=$(CURDIR)/bin/offloadd go test -count=1 -v -timeout 13h -exec "$(CURDIR)/bin/vmrun -v -timeout 12h -kernel $(KERNEL) --" \
		./integration/storm -storm.operations=$(OPERATIONS) $(STORMFLAGS)

.PHONY: race
race: prepare-race ## the tests that need no namespaces, under the race detector (gcc)
	go test -race ./cmd/... ./internal/... ./pkg/...

.PHONY: lint
lint: bin/golangci-lint bin/buf ## go vet, golangci-lint, and buf
	go vet ./...
	bin/golangci-lint run
	bin/buf lint
	@$(MAKE) breaking

.PHONY: breaking
breaking: bin/buf ## fail if a client built at commit BASE (main) would not understand the .proto files
	@! git cat-file -e $(BASE):buf.yaml 2>/dev/null || git archive $(BASE) buf.yaml proto | bin/buf breaking --against -#format=tar

.PHONY: build
build: ## the programs, statically linked, into bin/
	CGO_ENABLED=0 go build -o bin/ ./cmd/...

.PHONY: generate
generate: prepare ## write all generated code anew
	go generate ./...

.PHONY: generate-check
generate-check: generate ## fail if the generated code is not what its sources say
	git diff --exit-code -- $(GENERATED)
	@new=$$(git ls-files --others --exclude-standard -- $(GENERATED)); test -z "$$new" || { echo "not committed: $$new" >&2; exit 1; }

.PHONY: golden
golden: ## rewrite the expectations of golden files; explain each changed line
	go test $(GOLDEN) -update
	git diff --stat -- '*testdata*'

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (60s)
	tools/fuzz $(FUZZTIME)

.PHONY: bench-cold
bench-cold: prepare build ## cold start of offloadd and of ovn-controller on the same databases, as ratios
	go run ./integration/benchcold -offloadd bin/offloadd $(BENCHFLAGS)

.PHONY: bench-tc
bench-tc: prepare-vm bin/vmrun ## the pipeline as TC filters beside tc -batch, in a guest: BENCHTC="-ports 100 -acls 500 ..."
	CGO_ENABLED=0 go build -o bin/ ./integration/benchtc
	sysctl -w vm.max_map_count=1048576 # each page of a process in the guest is a mapping outside, of which 65530 are allowed
	bin/vmrun -timeout 30m -kernel uml -memory 6000 -- $(CURDIR)/bin/benchtc $(BENCHTC)

.PHONY: bench-ports
bench-ports: prepare prepare-vm build bin/vmrun ## pods attached by cnitool: offload-cni beside the reference plugins; here, then on a simulated NIC in a guest
	@CGO_ENABLED=0 go build -o bin/ ./integration/benchports
	@CGO_ENABLED=0 go build -modfile=tools/cni/go.mod -o bin/ $(CNI)
	@bin/benchports -offloadd bin/offloadd -cni bin $(BENCHFLAGS)
	@SIMNIC=$$(go run ./integration/simnic/build -kernel qemu) && bin/vmrun -kernel qemu -timeout 60m -- \
		$(CURDIR)/bin/benchports -offloadd bin/offloadd -cni bin -pods 8 -simnic $$SIMNIC $(BENCHFLAGS)

.PHONY: bench-probe
bench-probe: prepare-probe ## how far the probe's numbers can be trusted: beside sockperf, on twins, with known delays, beside a hog; BENCHFLAGS='sockperf'
	@CGO_ENABLED=0 go build -o bin/ ./integration/benchprobe
	@bin/benchprobe $(BENCHFLAGS)

.PHONY: hardware
hardware: ## tests and benchmarks on a NIC of this machine: DEV=pci/0000:03:00.0 WIRE=enp3s0f1np1, see docs/hardware.md; without DEV the NICs there are
	@CGO_ENABLED=0 go build -o bin/ ./integration/hardware
	@bin/hardware -device '$(DEV)' -wire '$(WIRE)' $(if $(HARDWARE_SETUP),-change) -preflight
	@CGO_ENABLED=0 go build -o bin/ ./cmd/... ./integration/benchports ./integration/benchtc
	@CGO_ENABLED=0 go build -tags faults -o bin/offloadd-faults ./cmd/offloadd
	@CGO_ENABLED=0 go build -modfile=tools/cni/go.mod -o bin/ $(CNI)
	@CGO_ENABLED=0 go test -c -o bin/ ./integration/offloadnic ./integration/devports
	@bin/hardware -device '$(DEV)' -wire '$(WIRE)' $(if $(HARDWARE_SETUP),-change) $(HARDWAREFLAGS)

.PHONY: parity
parity: prepare build ## compare the flows of offloadd with those of ovn-controller, a line for each database contents
	OFFLOADD=$(CURDIR)/bin/offloadd go test -count=1 -v -run TestParity ./integration/parity/...

.PHONY: vm
vm: prepare-vm bin/vmrun ## run CMD in a guest kernel: make vm KERNEL=qemu CMD='uname -a; tc qdisc'
	@bin/vmrun -v -kernel $(KERNEL) -- sh -c $(if $(CMD),'$(subst ','\'',$(CMD))',$(error CMD is what to run))

.PHONY: bin/vmrun
bin/vmrun:
	@CGO_ENABLED=0 go build -o $@ ./integration/vm/run

.PHONY: prepare prepare-race prepare-vm prepare-probe
prepare:
	@tools/prepare lab
prepare-race:
	@tools/prepare race
prepare-vm:
	@tools/prepare vm
prepare-probe:
	@tools/prepare probe

bin/golangci-lint: tools/go.mod
	go build -modfile=tools/go.mod -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

bin/buf: tools/buf/go.mod
	go build -modfile=tools/buf/go.mod -o $@ github.com/bufbuild/buf/cmd/buf
	@touch $@
