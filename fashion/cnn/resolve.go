package cnn

// Resolve says which backend "auto" stands for on this machine, with the reason where it is not XLA; other names are tried and kept.
func Resolve(want string) (name, notice string, err error) {
	b, name, notice, err := openBackend(want)
	if err != nil {
		return "", "", err
	}
	b.Finalize()
	return name, notice, nil
}
