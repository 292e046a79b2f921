//! A front server that answers some requests in the console's place.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// Starts it on a free port of loopback, and returns its URL. Requests with `/api/` in their path get this answer; it
/// forwards all others to the console at this port. It lives as long as the test's process.
pub(crate) fn before(console_port: u16, answer: &str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(client, console_port, &answer));
        }
    });
    url
}

fn serve(mut client: TcpStream, console_port: u16, answer: &str) {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    // The agent may close the connection at any time, so errors do not matter here.
    if String::from_utf8_lossy(&request).contains("/api/") {
        let _ = client.write_all(answer.as_bytes());
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read(&mut byte);
        return;
    }
    let Ok(mut console) = TcpStream::connect(("127.0.0.1", console_port)) else { return };
    let _ = console.write_all(&request);
    let (Ok(mut back_from), Ok(mut back_to)) = (console.try_clone(), client.try_clone()) else { return };
    std::thread::spawn(move || pipe(&mut back_from, &mut back_to));
    pipe(&mut client, &mut console);
}

fn pipe(from: &mut TcpStream, to: &mut TcpStream) {
    let _ = std::io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}
