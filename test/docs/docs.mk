# Every command in README.md and docs. Part of the Makefile, which has `build`.
# Without root, the commands are looked at and not run.

.PHONY: test-docs

test-docs: build deps-apps
	POEMQ_BIN=$(BIN) POEMQ_TEST_STRICT=1 $(GO) test -count=1 -timeout 10m $(TESTFLAGS) ./test/docs
