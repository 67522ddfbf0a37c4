package main

/*
#cgo pkg-config: recfuse-c
#include <recfuse/recfuse.h>
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// Modality is one kind of vector of the model.
type Modality struct {
	Name string
	Dim  int
}

// Model is an open model file. Any number of goroutines may ask it.
type Model struct {
	raw        *C.recfuse_model
	Modalities []Modality
}

// Query is what a request asks beside its user, item or vectors.
type Query struct {
	K       int
	Weights []float64 // one per modality; nil: those of the user, or of the model
	Exclude []int32
}

// Hit is an item, by its row, with its score.
type Hit struct {
	Item  int32
	Score float32
}

// locked runs a call and takes its message from the same thread: a goroutine may move between two calls.
func locked(call func() C.recfuse_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if call() != C.RECFUSE_OK {
		return errors.New(C.GoString(C.recfuse_last_error()))
	}
	return nil
}

// Open maps a model file; Close it when nobody asks any more.
func Open(path string) (*Model, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	model := &Model{}
	if err := locked(func() C.recfuse_status {
		return C.recfuse_model_open(name, C.RECFUSE_VERIFY_SMALL, &model.raw)
	}); err != nil {
		return nil, err
	}
	var info C.recfuse_info
	info.struct_size = C.sizeof_recfuse_info
	if err := locked(func() C.recfuse_status { return C.recfuse_model_info(model.raw, &info) }); err != nil {
		model.Close()
		return nil, err
	}
	for index := C.int64_t(0); index < info.n_modalities; index++ {
		var modality C.recfuse_modality
		modality.struct_size = C.sizeof_recfuse_modality
		if err := locked(func() C.recfuse_status {
			return C.recfuse_model_modality(model.raw, index, &modality)
		}); err != nil {
			model.Close()
			return nil, err
		}
		model.Modalities = append(model.Modalities, Modality{C.GoString(modality.name), int(modality.dim)})
	}
	return model, nil
}

// Close ends the mapping.
func (m *Model) Close() {
	C.recfuse_model_close(m.raw)
	m.raw = nil
}

// UserRow translates an id.
func (m *Model) UserRow(id string) (int64, error) {
	text := C.CString(id)
	defer C.free(unsafe.Pointer(text))
	var row C.int64_t
	err := locked(func() C.recfuse_status {
		return C.recfuse_user_row(m.raw, text, C.size_t(len(id)), &row)
	})
	return int64(row), err
}

// ItemID translates a row.
func (m *Model) ItemID(row int32) (string, error) {
	var length C.size_t
	if err := locked(func() C.recfuse_status {
		return C.recfuse_item_id(m.raw, C.int64_t(row), nil, 0, &length)
	}); err != nil {
		return "", err
	}
	text := make([]byte, length+1)
	err := locked(func() C.recfuse_status {
		return C.recfuse_item_id(m.raw, C.int64_t(row), (*C.char)(unsafe.Pointer(&text[0])), length+1, &length)
	})
	return string(text[:length]), err
}

// Recommend lists items for a user.
func (m *Model) Recommend(user int64, query Query) ([]Hit, error) {
	row := C.int64_t(user)
	return ask(query, func(raw *C.recfuse_query, items *C.int32_t, scores *C.float) C.recfuse_status {
		return C.recfuse_recommend(m.raw, &row, 1, raw, items, scores)
	})
}

// Similar lists the items most like one.
func (m *Model) Similar(item int32, query Query) ([]Hit, error) {
	row := C.int64_t(item)
	return ask(query, func(raw *C.recfuse_query, items *C.int32_t, scores *C.float) C.recfuse_status {
		return C.recfuse_similar(m.raw, &row, 1, raw, items, scores)
	})
}

// Search lists items for vectors: one per modality, nil where it is not asked.
func (m *Model) Search(vectors [][]float32, query Query) ([]Hit, error) {
	if len(vectors) != len(m.Modalities) {
		return nil, fmt.Errorf("vectors must be %d, one per modality; got %d", len(m.Modalities), len(vectors))
	}
	pointers := make([]unsafe.Pointer, len(vectors))
	for i, vector := range vectors {
		if vector == nil {
			continue
		}
		if len(vector) != m.Modalities[i].Dim {
			return nil, fmt.Errorf("vectors[%d] must have %d values; got %d", i, m.Modalities[i].Dim, len(vector))
		}
		pointers[i] = inC(vector)
		defer C.free(pointers[i])
	}
	table := inC(pointers)
	defer C.free(table)
	return ask(query, func(raw *C.recfuse_query, items *C.int32_t, scores *C.float) C.recfuse_status {
		return C.recfuse_search(m.raw, (**C.float)(table), C.int64_t(len(vectors)), 1, raw, items, scores)
	})
}

// inC copies to memory of C, which C may point to from its structs; nil for nothing.
func inC[T any](values []T) unsafe.Pointer {
	if len(values) == 0 {
		return nil
	}
	size := uintptr(len(values)) * unsafe.Sizeof(values[0])
	memory := C.malloc(C.size_t(size))
	copy(unsafe.Slice((*T)(memory), len(values)), values)
	return memory
}

func ask(query Query, call func(*C.recfuse_query, *C.int32_t, *C.float) C.recfuse_status) ([]Hit, error) {
	if query.K < 1 {
		return nil, fmt.Errorf("K must be at least 1; got %d", query.K)
	}
	var raw C.recfuse_query
	raw.struct_size = C.sizeof_recfuse_query
	raw.k = C.int64_t(query.K)
	weights, exclude := inC(query.Weights), inC(query.Exclude)
	defer C.free(weights)
	defer C.free(exclude)
	raw.weights, raw.n_weights = (*C.double)(weights), C.int64_t(len(query.Weights))
	raw.exclude, raw.n_exclude = (*C.int32_t)(exclude), C.int64_t(len(query.Exclude))
	items, scores := make([]C.int32_t, query.K), make([]C.float, query.K)
	if err := locked(func() C.recfuse_status { return call(&raw, &items[0], &scores[0]) }); err != nil {
		return nil, err
	}
	var hits []Hit
	for i := 0; i < query.K && items[i] >= 0; i++ { // -1: the list is shorter
		hits = append(hits, Hit{int32(items[i]), float32(scores[i])})
	}
	return hits, nil
}
