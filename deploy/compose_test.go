package deploy

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestOneContainerFillsAVolume: Docker copies what an image has at a mount's path, and its owner, into a volume that is
// empty when a container is created. Compose creates containers side by side, so a second one that copies into the same
// volume may meet the first ("file exists"), or set another owner.
func TestOneContainerFillsAVolume(t *testing.T) {
	file, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var project struct {
		Services map[string]struct{ Volumes []string }
		Volumes  map[string]any
	}
	if err := yaml.Unmarshal(file, &project); err != nil {
		t.Fatal(err)
	}
	filledBy := map[string][]string{}
	for service, s := range project.Services {
		for _, mount := range s.Volumes {
			parts := strings.Split(mount, ":")
			if _, named := project.Volumes[parts[0]]; !named {
				continue
			}
			if len(parts) < 3 || !slices.Contains(strings.Split(parts[2], ","), "nocopy") {
				filledBy[parts[0]] = append(filledBy[parts[0]], service)
			}
		}
	}
	for volume := range project.Volumes {
		if by := filledBy[volume]; len(by) != 1 {
			t.Errorf("volume %s is filled by %q: one service fills it, each other mounts it with `nocopy`", volume, by)
		} else if by[0] == "worker" {
			t.Errorf("volume %s is filled by each replica of the worker: mount it with `nocopy`", volume)
		}
	}
}
