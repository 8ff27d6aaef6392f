# Two hosts with an emulated path between them: races, roll-out, outages, times
# and throughput beside the kernel's TCP. Part of the Makefile, which has
# `build`. It needs root; POEMQ_LONG=1 takes the long form of tests that wait.

.PHONY: test-network

test-network: build
	POEMQ_BIN=$(BIN) $(GO) test -v -p 1 -count=1 -timeout 20m $(TESTFLAGS) ./test/link ./test/network
