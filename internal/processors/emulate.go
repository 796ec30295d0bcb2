package processors

import "fmt"

// A model is how a processor answers CPUID: vendor, family and model, caches L1d, L2 and L3 in KiB, widest vectors.
type model struct{ name, answers, vectors string }

func models() []model {
	return []model{
		{"zen2", "amd 0x830f10 32 512 16384", "avx2"}, {"zen3", "amd 0xa00f11 32 512 32768", "avx2"},
		{"zen4", "amd 0xa10f11 32 1024 32768", "bf16"}, {"zen5", "amd 0xb00f21 48 1024 32768", "bf16"},
		{"haswell", "intel 0x306f2 32 256 30720", "avx2"}, {"skylake", "intel 0x50654 32 1024 33792", "avx512"},
		{"icelake", "intel 0x606a6 48 1280 49152", "vbmi2"},
		{"sapphirerapids", "intel 0x806f8 48 2048 107520", "amx"},
	}
}

// Models are the names of processors that Emulate knows.
func Models() (names []string) {
	for _, m := range models() {
		names = append(names, m.name)
	}
	return names
}

func modelNamed(name string) (model, error) {
	for _, m := range models() {
		if m.name == name {
			return m, nil
		}
	}
	return model{}, fmt.Errorf("unknown processor %q: expected one of %v", name, Models())
}
