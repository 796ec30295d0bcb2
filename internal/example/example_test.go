package example_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"slices"
	"sync"

	"evenweave/allreduce"
	"evenweave/allreduce/allreducetest"
	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/state"
	"evenweave/proto"
	"evenweave/worker"
)

// Three runs of the trainer's own loop in one process: one worker, three workers, and five of which three are dropped
// on the way. A loop gets its model, data, records and collective from outside; here records in memory replace etcd,
// and a ring in memory replaces gRPC.
func Example() {
	alone := train(1)
	three := train(3)
	fewer := train(5, 2)

	figures, err := alone.Evaluate(context.Background(), example.Points{N: 300})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("one worker: %s %.3f, %s %.2f\n", figures[0].Name, figures[0].Value, figures[1].Name, figures[1].Value)
	fmt.Println("three workers, the same bits:", slices.Equal(alone.Weights(), three.Weights()))
	fmt.Println("five, then two, the same bits:", slices.Equal(alone.Weights(), fewer.Weights()))
	// Output:
	// one worker: accuracy 0.987, loss 0.20
	// three workers, the same bits: true
	// five, then two, the same bits: true
}

// train trains to the end with worlds of the given sizes, one after the other, and returns a surviving member's model.
func train(sizes ...int) *example.Softmax {
	j := job.Job{UUID: "example", Spec: job.Spec{Task: "softmax", Samples: 300, Seed: 1, GlobalBatch: 32,
		MicroBatch: 4, Epochs: 20}}
	total := j.Spec.TotalSteps()
	b := &records{changed: make(chan struct{}), links: map[int64][]allreducetest.Links{}}
	b.view.Job = &j
	b.publish(sizes[0])

	models := make([]*example.Softmax, sizes[0])
	var members sync.WaitGroup
	for i := range models {
		models[i] = example.NewSoftmax()
		m := &member{Softmax: models[i]}
		if i == 0 { // here member 0's commits decide for the leader
			m.committed = func(step int64) {
				if step == total {
					b.finish()
					return
				}
				b.publish(sizes[step*int64(len(sizes))/total])
			}
		}
		loop := &worker.Loop{
			ID: name(i), Job: j, Model: m, Data: example.Points{N: 300}, MetricNames: example.Metrics(), Parallelism: 2,
			Views: b, Connect: b.connect, Fetch: fresh{}, Log: slog.New(slog.DiscardHandler),
		}
		if err := loop.Init(); err != nil {
			log.Fatal(err)
		}
		members.Go(func() {
			if err := loop.Run(context.Background(), nil); err != nil {
				log.Fatal(err)
			}
		})
	}
	members.Wait()
	return models[0]
}

func name(i int) string { return fmt.Sprintf("member-%d", i) }

// member is the model of one worker, which reports its commits.
type member struct {
	*example.Softmax
	committed func(step int64)
}

func (m *member) Update(mean [][]float32, step int64) error {
	err := m.Softmax.Update(mean, step)
	if m.committed != nil {
		m.committed(step + 1)
	}
	return err
}

// fresh gives the state of step 0, which the coordinator otherwise writes as the first checkpoint.
type fresh struct{}

func (fresh) Fetch(context.Context, worker.Wanted) (*state.State, error) {
	layout, err := state.OfJob(example.NewSoftmax().Tensors())
	if err != nil {
		return nil, err
	}
	return state.New(layout, 300), nil
}

// Updates says that no member spares its state for a joiner: it fetches the first one.
func (fresh) Updates(context.Context, string, []string, string) (func() (*proto.Update, error), error) {
	return nil, errors.ErrUnsupported
}

func (fresh) Newest(context.Context, string, []string, string) (int64, error) {
	return 0, errors.ErrUnsupported
}

// records are what the members know of the cluster, and their rings.
type records struct {
	mu      sync.Mutex
	view    cluster.View
	changed chan struct{}
	links   map[int64][]allreducetest.Links // by generation
}

// View implements worker.Views.
func (b *records) View() (cluster.View, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view, b.changed
}

func (b *records) set(change func(*cluster.View)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.view)
	close(b.changed)
	b.changed = make(chan struct{})
}

// publish opens the next world, of the given size, unless it is open already. Members finish their step before they
// switch.
func (b *records) publish(size int) {
	b.set(func(v *cluster.View) {
		w := job.World{Job: v.Job.UUID, Generation: 1, Since: 1, Peers: make([]job.Peer, size)}
		if v.World != nil {
			if v.World.Size() == size {
				return
			}
			w.Generation, w.Since = v.World.Generation+1, v.World.Generation
		}
		for i := range w.Peers {
			w.Peers[i].ID = name(i)
		}
		v.World = &w
		b.links[w.Generation] = allreducetest.Ring(size, 1, 0, nil)
	})
}

func (b *records) finish() {
	b.set(func(v *cluster.View) { v.Done = &job.Done{Complete: true} })
}

// connect implements worker.Connect.
func (b *records) connect(_ context.Context, w job.World, rank int) (worker.Collective, error) {
	b.mu.Lock()
	l := b.links[w.Generation][rank]
	b.mu.Unlock()
	return allreduce.New(allreduce.Config{Job: w.Job, Generation: w.Generation, Rank: rank, Size: w.Size(),
		Members: w.IDs()}, l.Left, l.Right)
}
