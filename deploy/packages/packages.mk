# Man pages, installation and packages. Part of the Makefile, which has `build`.

PREFIX  ?= /usr/local
DESTDIR ?=
PAGES   := dist/man
# libseccomp for arm64, fetched once; nothing is installed for it. That it is in
# CGO_LDFLAGS too has Go build anew when it is elsewhere: what pkg-config says is
# not part of its cache's keys.
ARM64_ROOT = $(shell scripts/arm64-tree.sh libseccomp2 libseccomp-dev)

.PHONY: deps-man deps-packages man install build-arm64 nfpm packages test-man test-packages

deps-man:
	@scripts/deps-man.sh

deps-packages:
	@scripts/deps-packages.sh

man: build deps-man
	GO=$(GO) deploy/man/build.sh $(BIN) $(PAGES)

install: man
	DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) deploy/packages/install.sh $(BIN) $(PAGES)

build-arm64: deps-packages
	GOARCH=arm64 CGO_ENABLED=0 $(GOBUILD) -ldflags '$(LDFLAGS)' -o dist/arm64/poemqd ./cmd/poemqd
	GOARCH=arm64 CGO_ENABLED=0 $(GOBUILD) -ldflags '$(LDFLAGS)' -o dist/arm64/poemqctl ./cmd/poemqctl
	GOARCH=arm64 CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc CGO_LDFLAGS="-O2 -g -L$(ARM64_ROOT)/usr/lib/aarch64-linux-gnu" \
	  PKG_CONFIG_SYSROOT_DIR=$(ARM64_ROOT) PKG_CONFIG_LIBDIR=$(ARM64_ROOT)/usr/lib/aarch64-linux-gnu/pkgconfig \
	  $(GOBUILD) -tags netgo,osusergo \
	  -ldflags '$(LDFLAGS) -linkmode external -extldflags -static' -o dist/arm64/poemq-launch ./cmd/poemq-launch

nfpm: deps
	GOBIN=$(TOOLS) $(GO) install -C tools github.com/goreleaser/nfpm/v2/cmd/nfpm

# dist/*.deb, *.rpm and *.tar.gz, for amd64 and arm64.
packages: man build-arm64 nfpm
	rm -f dist/*.deb dist/*.rpm dist/*.tar.gz
	deploy/packages/build.sh amd64 $(BIN) $(PAGES) $(TOOLS)/nfpm
	HOST_BIN=$(BIN) deploy/packages/build.sh arm64 dist/arm64 $(PAGES) $(TOOLS)/nfpm
	@ls -l dist/*.deb dist/*.rpm dist/*.tar.gz

# Man pages, completions and what is installed where.
test-man: man
	POEMQ_BIN=$(BIN) POEMQ_TEST_STRICT=1 $(GO) test -count=1 $(TESTFLAGS) -run 'TestInstall|TestManPages|TestCompletions' ./test/packages

# Installs them in a small Debian of their own. It needs root for that.
test-packages: packages
	POEMQ_BIN=$(BIN) POEMQ_TEST_STRICT=1 $(GO) test -count=1 -timeout 10m $(TESTFLAGS) ./test/packages
