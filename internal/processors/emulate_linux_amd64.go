package processors

import (
	"context"
	_ "embed" // the emulator's source
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

//go:embed cpuid/cpuid.c
var emulator []byte

// Emulate returns variables with which a process that is linked dynamically, and those that it starts, find another
// processor than the machine has: kernels are chosen for it, and run at full speed. It compiles a library into dir,
// which must stay until those processes have ended. The error says what this machine lacks: a C compiler, CPUID that
// can fault (Intel's processors, and not always in a virtual machine), or the vectors of that processor.
func Emulate(ctx context.Context, name, dir string) (variables []string, err error) {
	m, err := modelNamed(name)
	if err != nil {
		return nil, err
	}
	lacks := map[string]bool{"avx2": !cpu.X86.HasAVX2 || !cpu.X86.HasFMA, "avx512": !cpu.X86.HasAVX512F,
		"vbmi2": !cpu.X86.HasAVX512VBMI2, "bf16": !cpu.X86.HasAVX512BF16, "amx": !cpu.X86.HasAMXTile}
	if lacks[m.vectors] {
		return nil, fmt.Errorf("this machine cannot compute as %s: it has no %s", name, strings.ToUpper(m.vectors))
	}
	source, library := filepath.Join(dir, "cpuid.c"), filepath.Join(dir, "cpuid.so")
	if err := os.WriteFile(source, emulator, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "cc", "-O1", "-shared", "-fPIC", source, "-o", library,
		"-ldl").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("the emulator cannot be compiled, which needs a C compiler, cc: %w %s", err,
			strings.TrimSpace(string(out)))
	}
	variables = []string{"EVENWEAVE_CPUID=" + m.answers + " " + m.vectors, "LD_PRELOAD=" + library}
	try := exec.CommandContext(ctx, "/bin/true")
	try.Env = append(os.Environ(), variables...)
	if out, err := try.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("no other processor can be emulated here: %w %s", err, strings.TrimSpace(string(out)))
	}
	return variables, nil
}

// Qemu returns what to put before a command line, so that qemu-user runs it as on another processor. That is slow, and
// needs nothing but qemu-x86_64, which has no vectors of 512 bits: the error says what is missing.
func Qemu(name string) (prefix []string, err error) {
	if _, err := modelNamed(name); err != nil {
		return nil, err
	}
	of := map[string]string{"haswell": "Haswell", "zen2": "EPYC-Rome", "zen3": "EPYC-Milan"}
	if of[name] == "" {
		return nil, fmt.Errorf("qemu-x86_64 cannot compute as %s: it has no AVX-512", name)
	}
	qemu, err := exec.LookPath("qemu-x86_64")
	if err != nil {
		return nil, fmt.Errorf("%w: qemu-user can emulate a processor slowly; install it", err)
	}
	return []string{qemu, "-cpu", of[name]}, nil
}

// CheckEmulated is for a process that Emulate's variables were given to: an error says that they have no effect.
func CheckEmulated() error {
	const arch, get = unix.SYS_ARCH_PRCTL, 0x1011 // ARCH_GET_CPUID: 0 where CPUID faults
	if os.Getenv("EVENWEAVE_CPUID") == "" {
		return nil
	}
	if runs, _, errno := unix.RawSyscall(arch, get, 0, 0); errno != 0 || runs != 0 {
		return errors.New("no other processor is emulated in this process: it must be linked dynamically (build it " +
			"with cgo)")
	}
	return nil
}
