# A Debian with systemd, booted with poemq as packages install it. Part of the
# Makefile, which has `build`. It needs root, and makes its files once in
# POEMQ_TEST_CACHE (by default poemq-test in XDG_CACHE_HOME or /var/cache).

.PHONY: deps-systemd test-systemd

deps-systemd:
	scripts/deps-systemd.sh

test-systemd: build deps-systemd
	POEMQ_BIN=$(BIN) $(GO) run ./test/report -count=1 -timeout 10m $(TESTFLAGS) ./test/systemd
