package gomlx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"

	"evenweave"
	"evenweave/checkpoint"
)

// Tuning is how a run starts from what another has learned, and what of it stays. A task's options embed it, which
// makes the flags --init-from and --freeze of it, and Config.Tuning takes it. The zero Tuning starts from the seed and
// trains every weight.
type Tuning struct {
	// Freeze leaves variables as they are: patterns of their names, as path.Match has them, separated by commas. The
	// averages of a frozen batch normalisation still move.
	Freeze string `flag:"freeze" help:"weights that keep their first values, by names or patterns: words/*,hidden0/*/*"`
	// InitFrom is where Init takes the model's variables from, by name: a checkpoint of Evenweave, of this task or
	// another; a run directory, whose newest valid one is taken; or a directory of GoMLX checkpoints. What is not there
	// is initialized as always, as are optimizer and schedules. A tensor of another shape or type is refused.
	InitFrom string `flag:"init-from" spec:"-,create" help:"checkpoint, run directory or directory of GoMLX to start from"`
	// Init is the hash of what InitFrom holds: Prepare sets it, and a job's spec pins it.
	Init string `spec:"init"`
}

// Prepare implements evenweave.Preparer. It settles which file InitFrom means: a run may still write others.
func (t *Tuning) Prepare(ctx context.Context) (notes []string, err error) {
	t.Init = ""
	if t.InitFrom == "" {
		return nil, nil
	}
	from, err := learnedAt(ctx, t.InitFrom, func(e *checkpoint.DamagedError) {
		notes = append(notes, "skipped: "+e.Error())
	})
	if err != nil {
		return nil, fmt.Errorf("--init-from: %w", err)
	}
	t.InitFrom, t.Init = from.path, from.hash
	return append(notes, fmt.Sprintf("starting from the weights of %s (%s)", from.path, from.hash)), nil
}

// learned are the tensors of a checkpoint.
type learned struct {
	path, hash string
	tensors    map[string]value
}

type value struct {
	evenweave.Tensor
	bytes []byte
}

// learnedAt reads what Tuning.InitFrom names. It calls skipped for each damaged checkpoint that is newer.
func learnedAt(ctx context.Context, path string, skipped func(*checkpoint.DamagedError)) (*learned, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	_, other := os.Stat(filepath.Join(path, "checkpoints"))
	if info.IsDir() && other != nil {
		return learnedOfGoMLX(path)
	}
	if path, err = checkpoint.Find(ctx, path, skipped); err != nil {
		return nil, err
	}
	c, err := checkpoint.Load(ctx, path)
	if err != nil {
		return nil, err
	}
	l := &learned{path: path, hash: c.WeightsSHA256, tensors: map[string]value{}}
	for _, t := range c.Tensors {
		bytes, err := c.Bytes(t.Name)
		if err != nil {
			return nil, err
		}
		l.tensors[t.Name] = value{evenweave.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape}, bytes}
	}
	return l, nil
}

// learnedOfGoMLX reads the newest of a directory of GoMLX checkpoints. Its hash is that of paths, shapes and values.
func learnedOfGoMLX(dir string) (*learned, error) {
	store, err := storeOf(dir)
	if err != nil {
		return nil, err
	}
	defer store.Finalize()
	values := map[string]*tensors.Tensor{}
	for v := range store.IterVariables() {
		if _, known := types()[v.DType()]; known && v.HasValue() {
			values[v.Path()] = v.MustValue()
		}
	}
	h, l := sha256.New(), &learned{path: dir, tensors: map[string]value{}}
	for _, path := range slices.Sorted(maps.Keys(values)) {
		shape := values[path].Shape()
		fmt.Fprintf(h, "%q %s\n", path, shape)
		t := value{Tensor: evenweave.Tensor{Name: nameOf(path), Type: types()[shape.DType], Shape: shape.Dimensions}}
		err := values[path].ConstFlatData(func(flat any) {
			t.bytes = slices.Clone(bytesOf(flat))
			h.Write(t.bytes)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", dir, path, err)
		}
		l.tensors[t.Name] = t
	}
	l.hash = hex.EncodeToString(h.Sum(nil))
	return l, nil
}

// start takes the model's own variables from what another run has learned.
func (m *Model) start(from Tuning) error {
	l, err := learnedAt(m.setup.Context, from.InitFrom, func(e *checkpoint.DamagedError) {
		m.setup.Log.Warn("damaged checkpoint skipped", "err", e)
	})
	if err != nil {
		return fmt.Errorf("init-from: %w", err)
	}
	if from.Init != "" && l.hash != from.Init {
		return fmt.Errorf("init-from: %s holds weights %s now, the job starts from %s: something has written to it; "+
			"start again", l.path, l.hash, from.Init)
	}
	var missing []string
	taken := 0
	for _, t := range m.state {
		v, found := l.tensors[t.Name]
		switch {
		case !t.own:
			continue
		case !found:
			missing = append(missing, t.Name)
			continue
		case v.Type != t.Type || !slices.Equal(v.Shape, t.Shape):
			return fmt.Errorf("init-from: %s: its tensor %s is %s%v, the model's %s%v: give the model the parameters "+
				"that were trained, or the layer another name", l.path, t.Name, v.Type, v.Shape, t.Type, t.Shape)
		}
		copy(t.bytes, v.bytes)
		if err := t.changed(); err != nil {
			return err
		}
		taken++
	}
	if taken == 0 {
		return errors.New("init-from: " + l.path + " has none of the model's variables: " + strings.Join(missing, ", "))
	}
	if len(missing) > 0 {
		m.setup.Log.Warn("not in the checkpoint, and initialized as always: " + strings.Join(missing, ", "))
	}
	return nil
}
