# The zpoline way in: the hook library and its loader, in C for x86-64.

ZP_CC     := $(or $(CC),cc)
ZP_FLAGS  := -std=c11 -D_GNU_SOURCE -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror
# The loader runs where there is no thread-local storage (no stack protector) and
# where vector registers are the program's.
ZP_LOADER_FLAGS := $(ZP_FLAGS) -mgeneral-regs-only -mno-red-zone -fno-stack-protector \
  -fno-tree-loop-distribute-patterns -fcf-protection=none
ZP_LOADER := $(sort $(wildcard zpoline/loader*.c)) zpoline/loader_entry.S

.PHONY: zpoline test-zpoline

# What there is for this machine is part of what is built.
ifeq ($(shell uname -m),x86_64)
build: zpoline
endif

zpoline: $(BIN)/libpoemq-zpoline.so

$(BIN)/libpoemq-zpoline.so: $(ZP_LOADER) $(wildcard zpoline/loader*.h)
	@mkdir -p $(BIN)
	$(ZP_CC) $(ZP_LOADER_FLAGS) -shared -Wl,-z,defs,-z,now,-z,relro -o $@ $(ZP_LOADER)

# The loader with undefined behaviour made a trap, for tests: it has no runtime.
# Null is an address to it.
.PHONY: zpoline-ubsan
zpoline-ubsan:
	$(ZP_CC) $(ZP_LOADER_FLAGS) -fsanitize=undefined -fno-sanitize=null -fsanitize-undefined-trap-on-error \
	  -shared -Wl,-z,defs,-z,now,-z,relro -o $(UBSAN_OUT) $(ZP_LOADER)

# The loader's tests: a minute, less than a half of it when nothing else runs. Node
# and Java are among what it starts.
test-zpoline: zpoline deps-apps
	POEMQ_BIN=$(BIN) $(GO) run ./test/report -count=1 -timeout 10m $(TESTFLAGS) ./test/zpoline

# What a system call costs under the loader, with hooks that do nothing.
.PHONY: bench-zpoline
bench-zpoline: zpoline
	$(GO) run ./bench/zpoline -loader $(BIN)/libpoemq-zpoline.so
