# `make run` sets up and trains on this machine; `make test` sets up and tests. ARGS is passed on: make run ARGS="--epochs 1".
export GOEXPERIMENT := simd
ARGS ?=
RECIPE ?= --recipe fast --epochs 4
GO   ?= go
BIN  := bin/evenweave
# GoMLX's "go" backend converts pointers in a way that -race's checkptr refuses.
RACE := -race -gcflags=all=-d=checkptr=0

.PHONY: help setup setup-cuda build run test test-compose test-browser test-interop test-kubernetes test-load race fuzz bench lint sbom licenses vuln pin proto cross rename clean
help: ## what can be made
	@awk -F': .*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## fetch XLA's plug-in and the data into .evenweave, verified by SHA-256
	@deploy/setup/setup.sh

setup-cuda: ## and XLA's plug-in for NVIDIA GPUs, for --backend xla:cuda (0.9 GB)
	@EVENWEAVE_XLA=cuda deploy/setup/setup.sh

build: ## bin/evenweave
	$(GO) build -trimpath -o $(BIN) ./cmd/evenweave

run: setup build ## train on this machine: embedded etcd, a coordinator, two workers
	$(BIN) train $(RECIPE) $(ARGS)

test: setup build ## vet and all tests, of the programs under examples/ too; it says on which processor
	@bin/evenweave version
	$(GO) vet ./...
	$(GO) test -timeout 10m ./...
	@for module in examples/*/; do (cd $$module && $(GO) vet ./... && $(GO) test ./...) || exit 1; done

test-compose: setup build ## scales, kills and restarts a cluster made by docker compose; skipped where there is no Docker
	EVENWEAVE_TEST_COMPOSE=1 $(GO) test -v -count=1 -timeout 60m ./deploy/composetest

# Chromium comes from apt where this may install it: for root, or with EVENWEAVE_SUDO=1.
test-browser: setup build ## looks at the live page of a run in Chromium; skipped where there is none
	@deploy/browsertest/setup.sh
	cd deploy/browsertest && EVENWEAVE_TEST_BROWSER=$${EVENWEAVE_TEST_BROWSER:-1} $(GO) test -v -count=1 -timeout 15m .

# PyPI's packages go into .evenweave/interop: 240 MB are fetched.
test-interop: setup build ## reads what is written for other programs with those programs; skipped where there is no Python
	@deploy/interoptest/setup.sh
	EVENWEAVE_TEST_INTEROP=$${EVENWEAVE_TEST_INTEROP:-1} $(GO) test -v -count=1 -timeout 20m ./deploy/interoptest

test-kubernetes: setup build ## trains on a real cluster: scaling, deletions, the weights of a local run; skipped where there is none
	deploy/kubernetes/test.sh

test-load: ## 10,000 connections and 1,000 requests for states while a cluster trains, in one process: 6 minutes
	EVENWEAVE_TEST_LOAD=1 $(GO) test -v -count=1 -timeout 15m -run '^TestHeavyLoadStopsNoStep$$' ./internal/local

# Where goroutines share memory. Everything: make race PACKAGES=./...
PACKAGES ?= . ./allreduce/... ./internal/chaos ./checkpoint ./cli ./internal/cluster ./coordinator ./dataset ./fashion/evaluate ./internal/local ./internal/policy ./internal/processors ./internal/progress ./proto ./internal/security ./internal/serving ./internal/simulation ./internal/telemetry ./internal/tracing ./internal/transfer ./internal/verify ./internal/web ./worker
race: setup ## the tests of packages with goroutines under the race detector
	$(GO) test $(RACE) -timeout 20m $(PACKAGES)

FUZZTIME ?= 20s
# Go's fuzzer may miss its own end on a busy machine and fail with "context deadline exceeded" and no input: once more then.
fuzz: ## every fuzz target for FUZZTIME
	@run() { echo "$$1 $$2"; $(GO) test -run '^$$' -fuzz "^$$2$$" -fuzztime $(FUZZTIME) $$1 >bin/fuzz.log 2>&1; }; \
	late() { grep -q 'context deadline exceeded' bin/fuzz.log && ! grep -q 'Failing input' bin/fuzz.log; }; \
	mkdir -p bin; for p in $$($(GO) list ./...); do for t in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
		run $$p $$t || { late && run $$p $$t; } || { cat bin/fuzz.log; exit 1; }; tail -n 1 bin/fuzz.log; done; done

bench: setup build ## benchmarks, then the ring and the step as a user runs them
	$(GO) test -run '^$$' -bench . -benchtime 200ms ./...
	$(BIN) bench allreduce
	$(BIN) bench allreduce --bytes 1K,444K,888K,4M,64M
	$(BIN) bench step

lint: ## gofmt, vet and the linters of .golangci.yml
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0 run

cross: ## the other platforms build, on the "go" backend at least
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/evenweave
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/evenweave

# The programs that these three run come from the module cache, and without it from where go fetches modules.
TOOLS = GOPROXY="file://$$($(GO) env GOMODCACHE)/cache/download,$$($(GO) env GOPROXY)"
sbom: build ## bin/sbom.json: what the program and its image are made of (CycloneDX)
	@$(TOOLS) GO="$(GO)" deploy/sbom.sh $(BIN) bin/sbom.json || { echo "sbom: NOT WRITTEN"; exit 1; }
	@echo "bin/sbom.json: $$(grep -c '"purl"' bin/sbom.json) parts"

LICENSES := Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT,MPL-2.0
licenses: ## the licences of all modules in the program are among those that are allowed
	@mkdir -p bin; $(TOOLS) $(GO) run github.com/google/go-licenses@v1.6.0 check ./cmd/evenweave \
		--allowed_licenses=$(LICENSES) 2>bin/licenses.log || { grep -v '^W' bin/licenses.log; \
		! grep -q '^go: ' bin/licenses.log || echo "licenses: NOT CHECKED: the program that checks cannot be had here"; exit 1; }
	@echo "licenses: all are among $(LICENSES)"

# The database is the Go project's, or a copy: make vuln GOVULNDB=file:///DIR
vuln: ## published faults in what the program uses; fails where the database cannot be had
	@mkdir -p bin; $(TOOLS) $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 $(if $(GOVULNDB),-db $(GOVULNDB)) ./... >bin/vuln.log 2>&1 || failed=1; \
	cat bin/vuln.log; ! grep -q -e 'fetching vulnerabilities' -e '^go: ' bin/vuln.log || \
		echo "vuln: NOT CHECKED: the program that checks, or its database of published faults, cannot be had here"; exit $${failed:-0}

pin: ## write the digests of all images into the Compose file, the Dockerfile and the manifests
	@deploy/pin.sh

proto: ## generate proto/*.pb.go (needs protoc)
	GOBIN=$(CURDIR)/bin $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(CURDIR)/bin $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0
	m=$$($(GO) list -m) && PATH=$(CURDIR)/bin:$$PATH protoc proto/evenweave.proto $$(for o in go go-grpc; do \
		echo --$${o}_out=. --$${o}_opt=module=$$m,Mproto/evenweave.proto=$$m/proto; done)

rename: ## give the module a name that others can fetch: make rename MODULE=host/owner/evenweave
	@deploy/rename.sh "$(MODULE)"

clean: ## what was built and fetched; run directories stay
	rm -rf bin .evenweave
