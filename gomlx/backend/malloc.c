//go:build cgo && !noxla && linux && (amd64 || arm64)

// XLA allocates what a call needs, up to hundreds of megabytes, and frees it after the call. As glibc ships, each
// thread has an arena of its own, and large blocks come from the kernel and go back to it: each call then faults in
// every page again (docs/benchmarks.md, "Processes keep the memory that they free").

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GLIBC__

// unless_set sets one of malloc's parameters, unless the user's environment does.
static void unless_set(const char *variable, int parameter, int value) {
	if (getenv(variable) == NULL) {
		mallopt(parameter, value);
	}
}

// keep_freed_memory runs before Go's runtime starts its threads, because a thread keeps the arena that it has.
__attribute__((constructor)) static void keep_freed_memory(void) {
	const char *tunables = getenv("GLIBC_TUNABLES");
	if (tunables != NULL && strstr(tunables, "glibc.malloc.") != NULL) {
		return;
	}
	unless_set("MALLOC_ARENA_MAX", M_ARENA_MAX, 1);
	unless_set("MALLOC_MMAP_MAX_", M_MMAP_MAX, 0);
	unless_set("MALLOC_TRIM_THRESHOLD_", M_TRIM_THRESHOLD, -1);
}

#endif
