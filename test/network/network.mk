# Two hosts with an emulated path between them: races, roll-out, outages, times
# and throughput beside the kernel's TCP. Part of the Makefile, which has
# `build`, and of `make test`: some two and a half minutes. It needs root;
# POEMQ_LONG=1 takes the long form of tests that wait, some twenty minutes.

.PHONY: test-network

test-network: build deps-apps
	POEMQ_BIN=$(BIN) $(GO) test -v -p 1 -count=1 -timeout 40m $(TESTFLAGS) ./test/link ./test/network
