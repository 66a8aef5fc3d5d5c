package main

import "testing"

func TestReadingsAreConvertedOrRefused(t *testing.T) {
	if reply, err := convert([]byte(`{"value": 20}`)); err != nil || string(reply) != `{"value":68}` {
		t.Errorf("%s, %v", reply, err)
	}
	for _, bad := range []string{"", "warm", "{}", `{"value": "20"}`} {
		if reply, err := convert([]byte(bad)); err == nil {
			t.Errorf("%q became %s", bad, reply)
		}
	}
}
