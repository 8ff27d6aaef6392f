# Included by the top Makefile. "make conform" compares every scenario under
# bin/poemq-launch with the kernel's own TCP and prints the score by family;
# "make conform-native" checks the scenarios themselves, native with native.

POEMQ_LAUNCH ?= $(CURDIR)/bin/poemq-launch

.PHONY: conform conform-zpoline conform-zpoline-short conform-native conform-heavy
conform:
	POEMQ_LAUNCH=$(POEMQ_LAUNCH) go test ./test/conform -count=1 -run TestConform -timeout 30m -v

# The same with the hook library in the programs (docs/zpoline.md), and the part
# of it that is run with "make test": what the way in makes the most difference to,
# with code changed from the start, which else is so only where the processor has
# protection keys.
conform-zpoline:
	CONFORM_VIA=zpoline POEMQ_LAUNCH=$(POEMQ_LAUNCH) go test ./test/conform -count=1 -run TestConform -timeout 30m -v

conform-zpoline-short:
	CONFORM_VIA=zpoline POEMQ_ZPOLINE=rewrite CONFORM_ONLY='socket/*,process/*,signals/*,ways/*' POEMQ_LAUNCH=$(POEMQ_LAUNCH) \
	  go test ./test/conform -count=1 -run TestConform -timeout 10m -v

conform-native:
	CONFORM_NATIVE=1 CONFORM_REPEAT=20 go test ./test/conform -count=1 -run TestConform -timeout 60m -v

# 2 GB both ways.
conform-heavy:
	CONFORM_HEAVY=1 POEMQ_LAUNCH=$(POEMQ_LAUNCH) go test ./test/conform -count=1 -run TestConform -timeout 60m -v
