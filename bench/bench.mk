# poemq beside its peers. Part of the Makefile, which has `build`. BENCHFLAGS are
# bench's own, such as -only bulk,pingpong -rounds 3; POEM_QUICLY_DIR is where
# poem-quicly was built, if it shall be measured too.

.PHONY: bench bench-quick

bench: build deps-apps
	$(GO) run ./bench -bin $(BIN) $(BENCHFLAGS)

# Shows that everything can be measured; its figures mean nothing.
bench-quick: build
	$(GO) run ./bench -bin $(BIN) -quick -out $(BIN)/bench-quick
