# Real programs and the failures of the past, under poemq-launch on loopback.
# Part of the Makefile, which has `build`. With POEMQ_TEST_NATIVE=1 the programs
# run on kernel TCP: that tries the tests, not poemq.

.PHONY: deps-apps test-apps test-regress

deps-apps:
	scripts/deps-apps.sh

test-apps: build deps-apps
	POEMQ_TEST_STRICT=1 go test -count=1 -timeout 10m ./test/rig ./test/apps

test-regress: build deps-apps
	POEMQ_TEST_STRICT=1 go test -count=1 -timeout 30m ./test/regress
