// recommend MODEL USER: what a model file that Python wrote has for somebody.
package main

import (
	"errors"
	"fmt"
	"math"
	"os"
)

func show(model *Model, title string, hits []Hit) error {
	fmt.Println(title)
	for _, hit := range hits {
		name, err := model.ItemID(hit.Item)
		if err != nil {
			return err
		}
		fmt.Printf("  %s %.6f %08x\n", name, hit.Score, math.Float32bits(hit.Score))
	}
	return nil
}

func run(path, name string) error {
	model, err := Open(path)
	if err != nil {
		return err
	}
	defer model.Close()
	user, err := model.UserRow(name)
	if err != nil {
		return err
	}
	hits, err := model.Recommend(user, Query{K: 3})
	if err != nil {
		return err
	}
	if err := show(model, "for "+name, hits); err != nil {
		return err
	}

	if len(hits) == 0 {
		return errors.New("nothing to recommend")
	}
	best := hits[0].Item
	title, err := model.ItemID(best)
	if err != nil {
		return err
	}
	place := len(model.Modalities) - 1
	last := model.Modalities[place]
	weights := make([]float64, len(model.Modalities))
	weights[place] = 1
	hits, err = model.Recommend(user, Query{K: 3, Weights: weights, Exclude: []int32{best}})
	if err != nil {
		return err
	}
	if err := show(model, fmt.Sprintf("for %s, by %s alone, without %s", name, last.Name, title), hits); err != nil {
		return err
	}

	if hits, err = model.Similar(best, Query{K: 3}); err != nil {
		return err
	}
	if err := show(model, "like "+title, hits); err != nil {
		return err
	}

	ones := make([]float32, last.Dim)
	for i := range ones {
		ones[i] = 1
	}
	vectors := make([][]float32, len(model.Modalities))
	vectors[place] = ones
	if hits, err = model.Search(vectors, Query{K: 3}); err != nil {
		return err
	}
	return show(model, "for a vector of "+last.Name, hits)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: recommend MODEL USER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
