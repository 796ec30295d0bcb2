package evenweave

import "image"

// Classed may be implemented by Data whose samples have classes, so that `data` can count them.
type Classed interface {
	// Classes are the names of the classes; none: the samples have no class.
	Classes() []string
	// Class is the index of a sample's class in Classes, negative for a sample without one. It is called for every
	// sample, and so must not read it.
	Class(sample int) int
}

// Pictured may be implemented by Data whose samples can be shown to people.
type Pictured interface {
	// Picture is what a person sees of a sample; nil: nothing.
	Picture(sample int) (image.Image, error)
}

// Located may be implemented by Data, to say which files it was read from.
type Located interface{ Files() []string }
