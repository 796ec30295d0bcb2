package dataset

import (
	"math"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

// samplesOf lists what d holds, in its order.
func samplesOf(t *testing.T, d evenweave.Data) []string {
	t.Helper()
	b := evenweave.Batch{Samples: make([]int32, d.Len())}
	for i := range b.Samples {
		b.Samples[i] = int32(i)
	}
	return contentOf(t, d, &b)
}

func TestPartsHoldEachSampleOnce(t *testing.T) {
	d := numbered(t, 30)
	want := samplesOf(t, d)
	rest, held, err := Split(d, 7)
	if err != nil {
		t.Fatal(err)
	}
	if got := append(samplesOf(t, rest), samplesOf(t, held)...); !slices.Equal(got, want) || held.Len() != 7 {
		t.Errorf("parts of %d and %d samples are not the whole", rest.Len(), held.Len())
	}
	shuffled := samplesOf(t, Shuffle(d, 1))
	if slices.Equal(shuffled, want) || slices.Equal(shuffled, samplesOf(t, Shuffle(d, 2))) {
		t.Error("shuffling changes nothing")
	}
	if slices.Sort(shuffled); !slices.Equal(shuffled, slices.Sorted(slices.Values(want))) {
		t.Error("shuffled samples are others")
	}
	for _, part := range []evenweave.Data{rest, held, Shuffle(d, 1)} {
		checkSamples(t, part)
	}
	if same, none, err := Split(d, 0); same != d || none != nil || err != nil {
		t.Errorf("nothing held out: %v, %v, %v", same, none, err)
	}
}

// Every position of a permutation is as likely as any other: the shuffle is that of Fisher and Yates.
func TestShuffleIsFair(t *testing.T) {
	var counts [4][4]int
	d := numbered(t, 4)
	for seed := range uint64(4000) {
		p := Shuffle(d, seed).(*part)
		for i := range int32(4) {
			counts[i][p.at(i)]++
		}
	}
	for i, row := range counts {
		for j, n := range row {
			if math.Abs(float64(n)-1000) > 150 {
				t.Errorf("sample %d is at place %d in %d of 4000 orders", j, i, n)
			}
		}
	}
}

func TestDigestsNameTheirPart(t *testing.T) {
	d := numbered(t, 30)
	rest, held, _ := Split(d, 7)
	again, _, _ := Split(numbered(t, 30), 7)
	if again.Digest() != rest.Digest() || !strings.HasSuffix(held.Digest(), " 23-29") {
		t.Errorf("digests %q, %q, %q", rest.Digest(), again.Digest(), held.Digest())
	}
	deep := Shuffle(d, math.MaxUint64)
	seen := map[string]bool{d.Digest(): true, rest.Digest(): true, held.Digest(): true}
	for range 20 {
		if seen[deep.Digest()] || len(deep.Digest()) > 128 {
			t.Errorf("digest %q", deep.Digest())
		}
		seen[deep.Digest()] = true
		deep = Shuffle(deep, math.MaxUint64)
	}
}

func TestImpossiblePartsAreRefused(t *testing.T) {
	d := numbered(t, 30)
	for _, n := range []int{-1, 30, math.MaxInt} {
		if _, _, err := Split(d, n); err == nil {
			t.Errorf("%d of 30 samples were held out", n)
		}
	}
	for _, r := range [][2]int{{-1, 3}, {0, 31}, {4, 4}, {5, 4}} {
		if _, err := Range(d, r[0], r[1]); err == nil {
			t.Errorf("range %v was taken", r)
		}
	}
}
