# What poemq survives. Part of the Makefile, which has `build`. SOAK is how long
# the mixed load with random kills goes on.

SOAK ?= 20s
.PHONY: test-faults
test-faults: build
	POEMQ_BIN=$(BIN) POEMQ_SOAK=$(SOAK) $(GO) run ./test/report -p 1 -count=1 -timeout 10m $(TESTFLAGS) ./test/faults
