# poemq. The targets for people: build, demo, test, lint, clean.

SHELL      := /bin/bash
GO         ?= go
BIN        := $(CURDIR)/bin
TOOLS      := $(BIN)/tools
# git describe when this is a checkout, else what the tarball says.
VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION)
LDFLAGS    := -s -w -X main.version=$(VERSION)
GOBUILD    := $(GO) build -trimpath
# A checkout that belongs to another user must build too; whatever else the
# environment says stays.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
FUZZTIME   ?= 10s
TESTFLAGS  ?=
# The race detector pays where goroutines share state; commands and the
# launcher have none to speak of.
RACE_DIRS  := addfd broker internal notify quic

.NOTPARALLEL:
.PHONY: all build demo test test-unit test-e2e storm bench-syscalls lint fuzz clean deps
all: build

deps:
	@scripts/deps.sh

build: deps
	CGO_ENABLED=0 $(GOBUILD) -ldflags '$(LDFLAGS)' -o $(BIN)/poemqd ./cmd/poemqd
	CGO_ENABLED=0 $(GOBUILD) -ldflags '$(LDFLAGS)' -o $(BIN)/poemqctl ./cmd/poemqctl
	CGO_ENABLED=1 $(GOBUILD) -tags netgo,osusergo \
	  -ldflags '$(LDFLAGS) -linkmode external -extldflags -static' -o $(BIN)/poemq-launch ./cmd/poemq-launch

# Shows the main job: nc, telnet, curl and iperf3 over QUIC on loopback.
demo: build
	@scripts/demo.sh $(BIN)

test: build lint test-unit test-e2e test-zpoline test-hook conform conform-zpoline-short test-e2e-zpoline-short test-apps test-regress test-network test-container test-faults test-systemd bench-quick test-ctl test-docs test-man

# Packages that need no privilege and no binaries.
test-unit: deps
	$(GO) run ./test/report -race $(TESTFLAGS) $(foreach d,$(RACE_DIRS),$(if $(wildcard $(d)),./$(d)/...))
	$(GO) run ./test/report -run 'TestManyStreams|TestLimit' $(TESTFLAGS) ./quic
	$(GO) run ./test/report $(TESTFLAGS) $(foreach d,cmd launcher,$(if $(wildcard $(d)),./$(d)/...)) ./test/arch ./bench/...

# Packages that run the binaries; alone, since they look at clocks and memory.
test-e2e: build
	POEMQ_BIN=$(BIN) $(GO) run ./test/report -p 1 -count=1 -timeout 25m $(TESTFLAGS) ./test/rig ./test/e2e ./test/storm

# socket() from four threads under a 1 kHz signal: part of test-e2e.
storm: build
	POEMQ_BIN=$(BIN) $(GO) test -v -count=1 ./test/storm

# What a trapped call costs beside the kernel's own, in one run.
bench-syscalls: build
	$(GO) run ./bench -bin $(BIN) -only syscalls -rounds 7 -strict

lint: deps
	@scripts/lint.sh $(TOOLS)

# Every fuzz target of the module for a short time each.
fuzz: deps
	@scripts/fuzz.sh $(FUZZTIME)

clean:
	rm -rf bin dist

# Targets that folders bring themselves.
include test/apps/apps.mk
include test/conform/conform.mk
include test/network/network.mk
include bench/bench.mk
include zpoline/hook.mk
include zpoline/zpoline.mk
include test/container/container.mk
include test/faults/faults.mk test/systemd/systemd.mk
include deploy/packages/packages.mk
include test/ctl/ctl.mk
include test/docs/docs.mk
