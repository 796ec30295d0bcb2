package backend

import _ "unsafe" // for go:linkname

// packed has GoMLX's backend "go" compute every product in one way: it packs both sides in panels of 128 terms, adds up
// a panel's one after the other with one FMA each, and adds the panels. AVX2 and AVX-512 then give the same bits, and
// so does any other width. By itself the library takes that way for products from a size that depends on the processor;
// its way for smaller ones adds up in lanes of the vector's width, and takes up to twice as long here.
//
// The library has no option for this. Should another version rename its variable, TestProductsAddUpInOneOrder fails.
//
//go:linkname packed github.com/gomlx/compute/internal/gobackend/dot/matmul.ForceLargeVariant
var packed bool

func init() { packed = true }
