# Included by the top Makefile: the hook library.
#
# It is for x86-64 and runs where no libc may be called and no vector register touched (hook.c),
# hence the flags.

HOOK_CFLAGS := -std=c11 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror -D_GNU_SOURCE \
  -mgeneral-regs-only -ffreestanding -fno-builtin -fno-stack-protector -fno-tree-loop-distribute-patterns
HOOK_SOURCES := $(sort $(wildcard zpoline/hook*.c))

# What there is for this machine is part of what is built.
ifeq ($(shell uname -m),x86_64)
build: $(BIN)/libpoemq-hook.so
endif

$(BIN)/libpoemq-hook.so: $(HOOK_SOURCES) zpoline/hook.h zpoline/hook_wire.h zpoline/loader.h
	@mkdir -p $(BIN)
	$(CC) $(HOOK_CFLAGS) $(CFLAGS) -shared -Wl,-z,now -Wl,-z,relro -Wl,-z,defs -o $@ $(HOOK_SOURCES)

# The library with undefined behaviour made a trap, for tests: it has no runtime.
# Null is an address to it.
.PHONY: hook-ubsan
hook-ubsan:
	$(CC) $(HOOK_CFLAGS) -fsanitize=undefined -fno-sanitize=null -fsanitize-undefined-trap-on-error \
	  -shared -Wl,-z,defs,-z,now,-z,relro -o $(UBSAN_OUT) $(HOOK_SOURCES)

# The hook library in programs, with its loader: half a minute at the most.
.PHONY: test-hook
test-hook: build
	POEMQ_BIN=$(BIN) $(GO) run ./test/report -count=1 -timeout 10m $(TESTFLAGS) ./test/hook

# The end-to-end programs with the hook library in them, and those of them that
# are run with "make test".
.PHONY: test-e2e-zpoline test-e2e-zpoline-short
test-e2e-zpoline: build
	POEMQ_VIA=zpoline POEMQ_BIN=$(BIN) $(GO) run ./test/report -p 1 -count=1 -timeout 25m $(TESTFLAGS) ./test/rig ./test/e2e

test-e2e-zpoline-short: build
	POEMQ_VIA=zpoline POEMQ_BIN=$(BIN) $(GO) run ./test/report -count=1 -timeout 10m -run 'TestTelnet|TestCurl|TestNetcatRequire|TestRuntimes|TestOrdinaryUser|TestEpollBeforeConnect|TestBadArguments|TestRefused|TestBrokerKilled|TestReaderThatNeverReads' $(TESTFLAGS) ./test/e2e
