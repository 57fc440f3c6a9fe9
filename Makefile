# Consort: one management plane for desktops and applications on any hypervisor.
# 'make' lists what there is to make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Where a development estate lives; images are kept between tests and runs.
STATE ?= /var/lib/consort
CACHE ?= $(CURDIR)/.cache
GOTEST ?= go test
export CONSORT_TEST_CACHE := $(CACHE)

# Debian packages: to run, and to test besides.
RUN_PACKAGES := qemu-system-x86 qemu-utils ovmf mmdebstrap e2fsprogs dosfstools mtools fdisk \
	grub-pc-bin grub-efi-amd64-bin lz4 iproute2 nftables dnsmasq-base dnsmasq-utils
TEST_PACKAGES := chromium tigervnc-viewer xclip xdotool vncsnapshot freerdp2-x11 virt-viewer xvfb imagemagick passt erofs-utils \
	libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients user-mode-linux websockify haproxy prometheus bind9-dnsutils

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- use it

run: deps web build ## install what is missing, build, start Consort here and print the link to sign in
	@mkdir -p $(STATE)
	@bin/consort up --state $(STATE) --apply examples/first-desktop

build: ## build bin/consort, and bin/consort-bench for guests
	@go build -trimpath -o bin/ ./cmd/consort
	@CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/consort-bench ./guest/bench

web: web/dist/index.html ## build the web pages

web/dist/index.html: web/package-lock.json web/index.html $(shell find web/src -type f 2>/dev/null)
	@cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@cd web && npm run --silent build

# ---- prove it

check: web ## formatting, vet, layout, generated files: under a minute when warm
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go mod verify >/dev/null
	@$(GOTEST) .
	@cd web && npm run --silent check

# The suite that hypervisors are held to, and what it runs on.
# Those that take longest begin first.
HYPERVISOR_TESTS := ./hypervisor/xen ./test/fleet ./hypervisor/libvirt ./hypervisor/... ./examples/... ./test/nested/...
RESULTS := $(CACHE)/results
# NESTED= leaves out what needs a Xen or KVM host inside this one: those take 16 GiB.
NESTED ?= 1
nested := $(if $(NESTED),CONSORT_HYPERVISORS=1)

test: deps test-deps web ## every test with real parts, but for those of test-hypervisors
	@mkdir -p $(CACHE)
	@$(GOTEST) -shuffle=on -timeout 20m $$(comm -23 <(go list ./... | sort) <(go list $(HYPERVISOR_TESTS) | sort))
	@cd web && npm test --silent

test-hypervisors: deps test-deps web ## every hypervisor against the whole suite, real ones on hosts of their own, and a table of it
	@rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	@failed=; \
	$(nested) CONSORT_RESULTS=$(RESULTS) $(GOTEST) -count=1 -p 2 -timeout 40m $(HYPERVISOR_TESTS) || failed=tests; \
	go run ./test/drivers $(RESULTS) || failed="$$failed promises"; \
	[ -z "$$failed" ] || { echo "test-hypervisors: failed: $$failed" >&2; exit 1; }

test-moves: deps test-deps web ## machines and desktops that go round all vendors, and between two hosts
	@CONSORT_JOURNEYS=1 CONSORT_PAIRS=all $(GOTEST) -count=1 -timeout 120m ./test/fleet -run Round -v
	@CONSORT_JOURNEYS=1 $(GOTEST) -count=1 -timeout 40m ./test -run Move

test-services: deps test-deps web ## a real service that grows and shrinks and has a slow replica, and a real desktop that leaves a slow host
	@CONSORT_JOURNEYS=1 $(GOTEST) -count=1 -timeout 30m ./test/services -v

drivers: ## put what test-hypervisors has shown last into docs/drivers.md and hypervisor/evidence.json
	@go run ./test/drivers -write $(RESULTS) >/dev/null

race: web ## the tests that need no guest, with the race detector
	@$(GOTEST) -race -short -timeout 20m ./...

test-short: ## the tests that need neither root nor a guest
	@$(GOTEST) -short ./...

fuzz: ## every fuzz target for FUZZTIME (30s)
	@for pkg in $$(grep -rl --include='*_test.go' 'func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -rhoE 'func (Fuzz[A-Za-z0-9_]+)' $$pkg/*_test.go | awk '{print $$2}'); do \
	    echo "== $$pkg $$f"; $(GOTEST) $$pkg -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-30s} -fuzzminimizetime 20x; done; done

soak: deps test-deps web ## kill everything at some 2,300 moments of desktops' lives and moves
	@CONSORT_KILLS=50 $(GOTEST) ./test -run TestKillAtAnyMoment -v -timeout 60m
	@CONSORT_KILLS=10 $(GOTEST) ./test -run TestKillWhileLayersComeAndGo -v -timeout 60m
	@CONSORT_KILLS=2000 $(GOTEST) ./plane/control/move -run TestKillsDuringMoves -v -timeout 60m
	@CONSORT_REPEATS=100 $(GOTEST) ./plane/control/pool -run TestASeatGoes -v -timeout 60m
	@CONSORT_REPEATS=20 $(GOTEST) ./test/pools -run TestASeatGoes -v -timeout 60m
	@CONSORT_KILLS=200 $(GOTEST) ./test/fleet -run TestKillsDuringRealMoves -v -timeout 180m
	@CONSORT_KILLS=200 $(GOTEST) ./test/disposable -v -timeout 180m
	@CONSORT_JOURNEYS=1 CONSORT_KILLS=20 $(GOTEST) ./test -run TestADesktopMovesToAnotherHostAndBack -v -timeout 60m

bench-connect: deps web build ## Connect to first frame, beside QEMU alone
	@go run ./bench/connect -cache $(CACHE)

bench-pool: deps test-deps web build ## arrivals of task workers: from Connect to the first frame, on ready seats and on seats made for them; 500 at once
	@CONSORT_QUIET=1 $(GOTEST) -count=1 ./test/pools -run TestFiveHundred -v | grep -v '^='
	@go run ./bench/pool -cache $(CACHE)

bench-clone: deps ## instant clones, beside cold boots and restores of saved memory
	@go run ./bench/clone -cache $(CACHE)

bench-display: deps test-deps web build ## pixels through the gateway: key to picture, updates a second by distance, memory; beside websockify
	@go run ./bench/display

bench-place: ## where machines are placed and how fast: openb, in memory and through the store, beside rivals
	@go run ./bench/place -cache $(CACHE)

bench-matrix: deps test-deps web build ## hypervisors of every vendor that is real here, against each other, twice (ON=local,libvirt REPEATS=5)
	@$(GOTEST) ./test/fleet -run TestMatrix -count=1 -v -timeout 180m -args -matrix $(CURDIR)/bench/results/matrix.json \
	  -program $(CURDIR)/bin/consort-bench $(if $(ON),-on $(ON)) $(if $(REPEATS),-repeats $(REPEATS))

bench-slo: ## error budgets counted to the event, beside averages of ratios
	@go run ./bench/slo

bench-scale: ## the decision engine and its rivals on five real traces, request by request
	@go run ./bench/scale

bench-front: test-deps ## what the front of services adds to a request, beside HAProxy
	@go run ./bench/front

bench-contexts: deps ## the walls between contexts, each beside the same without it: hostile frames, ways out of a machine's process
	@go run ./bench/contexts

# ---- what the machine needs

deps: ## install the Debian packages Consort runs on
	@$(call install,$(RUN_PACKAGES))

test-deps: ## install the Debian packages the tests use besides
	@$(call install,$(TEST_PACKAGES))

# install asks dpkg first, so that a machine that has everything needs no network.
define install
missing=; for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then \
  echo "installing:$$missing"; \
  [ "$$(id -u)" = 0 ] || { echo "run as root, or: apt-get install$$missing" >&2; exit 1; }; \
  export DEBIAN_FRONTEND=noninteractive; \
  apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null; fi
endef

clean: ## remove what was built here; estates and caches stay
	@rm -rf bin web/dist/assets web/dist/index.html

.PHONY: help run build web check test test-hypervisors test-moves test-services drivers test-short race fuzz soak bench-connect bench-clone bench-pool bench-display bench-matrix bench-front bench-slo bench-scale bench-contexts deps test-deps clean
