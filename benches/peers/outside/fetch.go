// Go's net/http with one goroutine for each request in flight: URL REQUESTS IN_FLIGHT kept|dropped.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
)

type answer struct {
	status  int
	headers http.Header
	body    []byte
}

func get(client *http.Client, url string) answer {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	request.Header.Set("User-Agent", "bench/1.0")
	request.Header.Set("Accept", "*/*")
	request.Header.Set("Accept-Encoding", "gzip, deflate, br")
	response, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	return answer{response.StatusCode, response.Header, body}
}

func main() {
	if os.Args[1] == "version" {
		fmt.Println(runtime.Version())
		return
	}
	requests, _ := strconv.Atoi(os.Args[2])
	inFlight, _ := strconv.Atoi(os.Args[3])
	keep := os.Args[4] == "kept"
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = inFlight
	transport.MaxIdleConns = inFlight
	client := &http.Client{Transport: transport}
	urls := make(chan string, inFlight)
	go func() {
		for i := 0; i < requests; i++ {
			urls <- os.Args[1]
		}
		close(urls)
	}()
	var wait sync.WaitGroup
	kept := make([][]answer, inFlight)
	good := make([]int, inFlight)
	for worker := 0; worker < inFlight; worker++ {
		wait.Add(1)
		go func(worker int) {
			defer wait.Done()
			for url := range urls {
				answer := get(client, url)
				if answer.status == 200 {
					good[worker]++
				}
				if keep {
					kept[worker] = append(kept[worker], answer)
				}
			}
		}(worker)
	}
	wait.Wait()
	total := 0
	for _, n := range good {
		total += n
	}
	fmt.Println(total)
	runtime.KeepAlive(kept)
}
