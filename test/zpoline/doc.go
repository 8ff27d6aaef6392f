// Package zpoline tests the loader of the zpoline way in: libpoemq-zpoline.so with a
// hook of its own (c/count_hook.c), without a broker. The programs in c/ check
// themselves; a test says how they are built, how they are started, and what they
// print. Each runs in three modes: rewriting as users have it, rewriting at once,
// and dispatching only.
package zpoline
