package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"os"
	"strconv"

	"evenweave"
)

// generate writes 6,000 flats with their prices, always the same ones. The price, in thousands, is a formula of the
// columns and a noise of up to 20 either way: the best that can be learned of it has a mean absolute error of 10.
func generate(_ context.Context, c *evenweave.Invocation) error {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write([]string{"area", "rooms", "year", "district", "heating", "price"}) // into memory
	for i := range 6000 {
		_ = w.Write(flat(evenweave.NewGenerator(uint64(i))))
	}
	w.Flush()
	return os.WriteFile(c.Args[0], out.Bytes(), 0o600)
}

func flat(random *evenweave.Generator) []string {
	below := func(n int) int { return int(random.Below(uint64(n))) }
	districts, heatings := []string{"Harbour", "Hills", "Market", "Mill Lane", "North, outer", "Old Town", "South"},
		[]string{"district", "gas", "heat pump", "stove"}
	district, heating := below(len(districts)), below(len(heatings))
	area, year := 25+below(150), 1890+below(136)
	rooms := 1 + min(area/30, 1+below(5))
	perMetre := []int{31, 44, 27, 24, 16, 52, 20}[district] // hundreds
	price := area*perMetre/10 + 12*rooms + []int{0, -8, 25, -20}[heating]
	if year > 2000 || year < 1920 && district == 5 { // what is new, and what is old in the Old Town
		price += price / 5
	}
	price += below(41) - 20
	return []string{strconv.Itoa(area), strconv.Itoa(rooms), strconv.Itoa(year), districts[district], heatings[heating],
		strconv.Itoa(price)}
}
