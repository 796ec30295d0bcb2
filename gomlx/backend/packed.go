package backend

import _ "unsafe" // for go:linkname

// packed makes GoMLX's backend "go" compute every product by its kernel for large ones, which adds up in the same order
// on every processor: it cuts the terms into panels of 128, adds up each panel term by term, with one FMA each, and
// adds the panels. AVX2, AVX-512 and any other width then give the same bits. By default the library uses this kernel
// only from a size on that depends on the processor. Its kernel for small products adds up in lanes of the vector's
// width, so its bits depend on the processor; here it also takes up to twice as long.
//
// The library has no option for this. Should another version rename its variable, TestProductsAddUpInOneOrder fails.
//
//go:linkname packed github.com/gomlx/compute/internal/gobackend/dot/matmul.ForceLargeVariant
var packed bool

func init() { packed = true }
