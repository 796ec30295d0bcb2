// A library to be preloaded, with which CPUID answers as another x86-64 processor would. Kernels are then chosen for
// that processor and run at full speed. Linux on processors that let CPUID fault (flag cpuid_fault in /proc/cpuinfo):
// Intel's, and not always in a virtual machine. Elsewhere it serves programs and libraries whose CPUID instructions
// were replaced with INVD, which faults in every program: deploy/bench/processors.sh makes such a copy.
//
//	cc -O1 -shared -fPIC cpuid.c -o cpuid.so -ldl
//	EVENWEAVE_CPUID="amd 0xa00f11 32 512 32768 avx2" LD_PRELOAD=./cpuid.so COMMAND
//
// are the vendor (amd, intel), what leaf 1 says of family and model, the sizes of the caches L1d, L2 and L3 in KiB, and
// the widest vectors: avx2; avx512 as Skylake-X has it; vbmi2 as Ice Lake; bf16 as Zen 4; amx as Sapphire Rapids, each
// with all before it. One more word, replaced, says that the instructions were. Exit code 97 says that CPUID cannot be
// made to fault here.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
enum { A, B, C, D, FAULT = 0x1012 /* ARCH_SET_CPUID: 0 has CPUID fault, 1 lets it run */ };
enum { CPUID = 0xa2, INVD = 0x08 }; // after 0x0f
enum { AVX2, AVX512, VBMI2, BF16, AMX };

typedef int action(int, const struct sigaction *, struct sigaction *);

static int active, amd, vectors;
static unsigned signature, level1, level2, level3; // caches in KiB
static struct sigaction program;                    // the program's own handler of SIGSEGV
static action *libc_sigaction;

static void name_vendor(unsigned r[4]) {
	const char *v = amd ? "AuthenticAMD" : "GenuineIntel";
	memcpy(&r[B], v, 4), memcpy(&r[D], v + 4, 4), memcpy(&r[C], v + 8, 4);
}

// A subleaf of "deterministic cache parameters" (Intel's leaf 4, AMD's 0x8000001d).
static void describe_cache(unsigned subleaf, unsigned r[4]) {
	static const unsigned type[] = {1, 2, 3, 3}, level[] = {1, 1, 2, 3}, sharing[] = {1, 1, 1, 8};
	unsigned kib[] = {level1, 32, level2, level3}, ways[] = {level1 % 48 ? 8 : 12, 8, 8, 16};
	memset(r, 0, 16);
	if (subleaf > 3) return;
	r[A] = type[subleaf] | level[subleaf] << 5 | BIT(8) | (sharing[subleaf] - 1) << 14;
	r[B] = 63 | (ways[subleaf] - 1) << 22; // lines of 64 bytes
	r[C] = kib[subleaf] * 1024 / 64 / ways[subleaf] - 1;
}

static void answer(unsigned leaf, unsigned subleaf, unsigned r[4]) {
	syscall(SYS_arch_prctl, FAULT, 1ul);
	__asm__ volatile("cpuid" : "=a"(r[A]), "=b"(r[B]), "=c"(r[C]), "=d"(r[D]) : "a"(leaf), "c"(subleaf));
	syscall(SYS_arch_prctl, FAULT, 0ul);
	unsigned l1 = level1 << 24 | 8 << 16 | 1 << 8 | 64;
	switch (leaf) {
	case 0:
		name_vendor(r);
		r[A] = amd ? 0x10 : r[A] > 0x16 ? r[A] : 0x16;
		break;
	case 1: r[A] = signature; break;
	case 2:
		memset(r, 0, 16);
		if (!amd) r[A] = 0x00feff01; // leaf 4 has the caches
		break;
	case 4:
		if (amd) memset(r, 0, 16);
		else describe_cache(subleaf, r);
		break;
	case 7:
		if (subleaf > 1) break;
		if (subleaf == 0 && amd) r[B] &= ~(BIT(4) | BIT(11)); // transactional memory
		if (subleaf == 0 && vectors < AVX512)
			r[B] &= ~(BIT(16) | BIT(17) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
		if (subleaf == 0 && vectors < VBMI2) {
			r[B] &= ~BIT(21);
			r[C] &= ~(BIT(1) | BIT(6) | BIT(8) | BIT(11) | BIT(12) | BIT(14));
		}
		if (subleaf == 0 && vectors == AVX512) r[C] &= ~(BIT(9) | BIT(10)); // of AES and carry-less products, wider
		if (subleaf == 0 && vectors < BF16) r[D] &= ~(BIT(2) | BIT(3) | BIT(8));
		if (subleaf == 0 && vectors < AMX) r[D] &= ~(BIT(22) | BIT(23) | BIT(24) | BIT(25)); // half precision too
		if (subleaf == 1 && vectors < BF16) r[A] &= ~(BIT(4) | BIT(5) | BIT(23)), r[D] = 0;
		if (subleaf == 1 && vectors < AMX) r[A] &= ~BIT(21);
		break;
	case 0x80000000:
		name_vendor(r);
		r[A] = amd ? 0x80000023 : 0x80000008;
		if (!amd) memset(&r[B], 0, 12);
		break;
	case 0x80000001:
		if (!amd) r[A] = r[B] = 0, r[C] &= 0x121, r[D] &= 0x2c100800; // not what only AMD has
		break;
	case 0x80000005:
		memset(r, 0, 16);
		if (amd) r[A] = r[B] = 0xff48ff40, r[C] = l1, r[D] = 32u << 24 | (l1 & 0xffffff);
		break;
	case 0x80000006:
		memset(r, 0, 16);
		r[C] = level2 << 16 | 6 << 12 | (amd ? BIT(8) : 0) | 64;
		if (amd) r[D] = level3 / 512 << 18 | 9 << 12 | 1 << 8 | 64;
		break;
	case 0x80000008:
		if (amd) r[C] = 0x7007;
		break;
	case 0x8000001d:
		if (amd) describe_cache(subleaf, r);
		else memset(r, 0, 16);
		break;
	case 0x8000001e:
		memset(r, 0, 16);
		break;
	}
}

static void on_fault(int number, siginfo_t *info, void *context) {
	greg_t *reg = ((ucontext_t *)context)->uc_mcontext.gregs;
	const unsigned char *at = (const unsigned char *)reg[REG_RIP];
	if (info->si_code == SI_KERNEL && at[0] == 0x0f && (at[1] == CPUID || at[1] == INVD)) {
		unsigned r[4];
		answer(reg[REG_RAX], reg[REG_RCX], r);
		reg[REG_RAX] = r[A], reg[REG_RBX] = r[B], reg[REG_RCX] = r[C], reg[REG_RDX] = r[D];
		reg[REG_RIP] += 2;
	} else if (program.sa_flags & SA_SIGINFO) {
		program.sa_sigaction(number, info, context);
	} else if (program.sa_handler == SIG_DFL || program.sa_handler == SIG_IGN) {
		libc_sigaction(number, &program, 0); // the instruction faults again
	} else {
		program.sa_handler(number);
	}
}

// The program's handler (Go has one) stays behind ours.
int sigaction(int number, const struct sigaction *act, struct sigaction *old) {
	if (!libc_sigaction) libc_sigaction = (action *)dlsym(RTLD_NEXT, "sigaction");
	if (number != SIGSEGV || !active) return libc_sigaction(number, act, old);
	struct sigaction before = program;
	if (act) program = *act;
	if (old) *old = before;
	return 0;
}

__attribute__((constructor)) static void start(void) {
	static const char *const widest[] = {"avx2", "avx512", "vbmi2", "bf16", "amx"};
	char vendor[8], width[8], replaced[9] = "";
	const char *model = getenv("EVENWEAVE_CPUID");
	if (!model) return;
	int fields = sscanf(model, "%7s %i %u %u %u %7s %8s", vendor, (int *)&signature, &level1, &level2, &level3, width,
			    replaced);
	while (fields >= 6 && vectors <= AMX && strcmp(width, widest[vectors])) vectors++;
	if (fields < 6 || vectors > AMX) {
		fprintf(stderr, "EVENWEAVE_CPUID=%s: expected vendor, signature, three caches and vectors\n", model);
		_exit(98);
	}
	amd = !strcmp(vendor, "amd");
	struct sigaction mine = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	sigfillset(&mine.sa_mask);
	sigaction(SIGSEGV, &mine, &program); // not active yet: libc's
	if (syscall(SYS_arch_prctl, FAULT, 0ul) != 0 && strcmp(replaced, "replaced")) {
		perror("arch_prctl: CPUID does not fault on this processor");
		_exit(97);
	}
	active = 1;
}
