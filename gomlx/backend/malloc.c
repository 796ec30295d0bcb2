//go:build cgo && !noxla && linux && (amd64 || arm64)

// XLA allocates what a call needs, up to hundreds of megabytes, and frees it after the call. As glibc ships, each
// thread has an arena of its own, and large blocks come from the kernel and go back to it: each call then faults in
// every page again (docs/benchmarks.md, "Processes keep the memory that they free").

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GLIBC__

// chosen reports whether the user's environment sets a parameter: by its variable, or by its tunable.
static int chosen(const char *variable, const char *tunable) {
	const char *tunables = getenv("GLIBC_TUNABLES");
	return getenv(variable) != NULL || (tunables != NULL && strstr(tunables, tunable) != NULL);
}

// keep_freed_memory runs before Go's runtime starts its threads, because a thread keeps the arena that it has.
__attribute__((constructor)) static void keep_freed_memory(void) {
	if (!chosen("MALLOC_ARENA_MAX", "glibc.malloc.arena_max")) {
		mallopt(M_ARENA_MAX, 1);
	}
	if (!chosen("MALLOC_MMAP_MAX_", "glibc.malloc.mmap_max") &&
	    !chosen("MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold")) {
		mallopt(M_MMAP_MAX, 0);
	}
	if (!chosen("MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold")) {
		mallopt(M_TRIM_THRESHOLD, -1);
	}
}

#endif

void return_freed_memory(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
