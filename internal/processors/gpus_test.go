package processors

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestListedGPUs(t *testing.T) {
	for list, want := range map[string][]string{
		"0": {"0"}, "2,0": {"2", "0"}, " 1 , GPU-8f6b": {"1", "GPU-8f6b"}, "": nil, "-1": nil, "0,-1,2": {"0"},
		"MIG-1/2/3": {"MIG-1/2/3"}, "1,,2": {"1"}, "NoDevFiles": nil,
	} {
		if got := listedGPUs(list); !slices.Equal(got, want) {
			t.Errorf("%q lists %q, want %q", list, got, want)
		}
	}
}

func TestDeviceGPUs(t *testing.T) {
	devices := fstest.MapFS{"nvidia2": {}, "nvidia5": {}, "nvidiactl": {}, "nvidia-uvm": {}, "null": {}}
	if got := deviceGPUs(devices); !slices.Equal(got, []string{"0", "1"}) {
		t.Errorf("%q, want two GPUs", got)
	}
	if got := deviceGPUs(fstest.MapFS{}); got != nil {
		t.Errorf("%q where there is none", got)
	}
}

func TestGPUsFollowTheVariable(t *testing.T) {
	t.Setenv(VisibleGPUs, "3,1")
	if got := GPUs(); !slices.Equal(got, []string{"3", "1"}) {
		t.Errorf("%q", got)
	}
}
