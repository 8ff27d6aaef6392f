# Containers with real engines from Debian, which the tests start themselves.
# Part of the Makefile, which has `build`. It needs root.

.PHONY: deps-container test-container

deps-container:
	scripts/deps-container.sh

test-container: build deps-container
	POEMQ_BIN=$(BIN) POEMQ_TEST_STRICT=1 $(GO) test -count=1 -timeout 10m $(TESTFLAGS) ./test/container
