# What an operator looks at: poemqctl, its JSON, top, doctor, the log, the status
# page in a browser, and a broker with 10,000 sockets. Part of the Makefile, which
# has `build`. POEMQ_UPDATE=1 writes testdata/json anew; POEMQ_SCREENSHOT=FILE.png
# keeps the picture of the status page.

.PHONY: test-ctl

test-ctl: build
	@scripts/deps-page.sh
	POEMQ_BIN=$(BIN) $(GO) run ./test/report -count=1 -timeout 10m $(TESTFLAGS) ./test/ctl
