package processors

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// VisibleGPUs is CUDA's variable: a list of the GPUs that a process sees.
const VisibleGPUs = "CUDA_VISIBLE_DEVICES"

// GPUs lists the GPUs that a process of this environment sees, as VisibleGPUs names them: what the variable lists, else
// those that have a device file in /dev, which is a container's too.
func GPUs() []string {
	listed, ok := os.LookupEnv(VisibleGPUs)
	if ok {
		return listedGPUs(listed)
	}
	return deviceGPUs(os.DirFS("/dev"))
}

// listedGPUs reads the variable as CUDA does: the list ends before the first entry that is none.
func listedGPUs(list string) (ids []string) {
	for _, id := range strings.Split(list, ",") {
		id = strings.TrimSpace(id)
		if n, err := strconv.Atoi(id); id == "" || err == nil && n < 0 || id == "NoDevFiles" {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

// deviceGPUs counts the device files: CUDA numbers GPUs from 0 on, whatever numbers the files have.
func deviceGPUs(devices fs.FS) (ids []string) {
	names, _ := fs.Glob(devices, "nvidia[0-9]*")
	for _, name := range names {
		if _, err := strconv.Atoi(strings.TrimPrefix(name, "nvidia")); err == nil {
			ids = append(ids, strconv.Itoa(len(ids)))
		}
	}
	return ids
}
