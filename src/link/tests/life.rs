//! The life of an open link: frames, messages, back-pressure, and every end.

use super::*;
use draupnir_fsm::driver::LinkId;

#[test]
fn frames_leave_in_order_and_messages_arrive() {
    run(async |mut rig| {
        let mut console = rig.connect().await;
        rig.link.write(
            LinkId(1),
            vec![WsFrame::Text("one".into()), WsFrame::Ping(b"two".to_vec()), WsFrame::Text("three".into())],
        );
        assert!(matches!(rig.report().await, LinkReport::Written { link: LinkId(1) }));
        assert_eq!(hear(&mut console).await, Message::text("one"));
        assert_eq!(hear(&mut console).await, Message::Ping(b"two".to_vec().into()));
        assert_eq!(hear(&mut console).await, Message::text("three"));

        say(&mut console, Message::text("hällo")).await;
        let LinkReport::Pong { link: LinkId(1), payload } = rig.report().await else { panic!() };
        assert_eq!(payload, b"two");
        let LinkReport::Text { link: LinkId(1), text } = rig.report().await else { panic!() };
        assert_eq!(&*text, "hällo");
        say(&mut console, Message::binary(vec![0; 70_000])).await;
        assert!(matches!(rig.report().await, LinkReport::Binary { link: LinkId(1), bytes: 70_000 }));
        assert!(rig.link.bytes_written() > 100);

        // A frame for another link, or for none, goes nowhere.
        rig.link.write(LinkId(2), vec![WsFrame::Text("stray".into())]);
        say(&mut console, Message::Ping(b"x".to_vec().into())).await;
        assert_eq!(hear(&mut console).await, Message::Pong(b"x".to_vec().into()));
    });
}

#[test]
fn close_follows_queued_frames_and_awaits_console_close() {
    run(async |mut rig| {
        let mut console = rig.connect().await;
        rig.link.write(LinkId(1), vec![WsFrame::Text("last".into())]);
        rig.link.close(LinkId(1), 1000, "agent shutdown");
        assert_eq!(hear(&mut console).await, Message::text("last"));
        let Message::Close(Some(frame)) = hear(&mut console).await else { panic!("no close frame") };
        assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Normal, "agent shutdown"));
        assert!(matches!(rig.report().await, LinkReport::Written { link: LinkId(1) }));
        assert!(rig.reports.is_empty(), "not closed before the console has answered");
        assert!(within(console.next()).await.is_none());
        drop(console);
        assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));
    });
}

#[test]
fn their_close_is_answered_and_reported_with_code_and_reason() {
    run(async |mut rig| {
        let with = |code: u16, reason: &'static str| Some(CloseFrame { code: code.into(), reason: reason.into() });
        let cases = [(with(1008, "Unknown instance ID: x"), 1008), (with(1012, ""), 1012), (None, 1005)];
        for (frame, expected) in cases {
            let mut console = rig.connect().await;
            say(&mut console, Message::Close(frame.clone())).await;
            let LinkReport::CloseReceived { link: LinkId(1), code, reason } = rig.report().await else { panic!() };
            assert_eq!(
                (code, reason),
                (expected, frame.clone().map(|frame| frame.reason.to_string()).unwrap_or_default())
            );
            assert_eq!(hear(&mut console).await, Message::Close(frame));
            assert!(within(console.next()).await.is_none());
            drop(console);
            assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));
        }
    });
}

#[test]
fn each_kind_of_loss_is_reported() {
    run(async |mut rig| {
        // An end of stream without a close frame.
        let console = rig.connect().await;
        drop(console);
        assert!(matches!(rig.report().await, LinkReport::Lost { link: LinkId(1), loss: Loss::Eof, .. }));
        assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));

        // A reset.
        let console = rig.connect().await;
        crate::sys::socket::reset_on_close(console.get_ref()).expect("linger");
        drop(console);
        assert!(matches!(rig.report().await, LinkReport::Lost { link: LinkId(1), loss: Loss::Reset, .. }));
        assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));
    });
}

#[test]
fn protocol_error_sends_close_frame_before_the_end() {
    let oversized = {
        let mut frame = vec![0x81, 127];
        frame.extend((crate::protocol::INBOUND_BYTES_MAX as u64 + 1).to_be_bytes());
        frame.resize(frame.len() + 300_000, b'x');
        frame
    };
    let cases: [(&[u8], Loss, u16); 5] = [
        (&oversized, Loss::TooBig, 1009),
        (b"\x81\x02\xc3\x28", Loss::Protocol, 1007),
        (b"\xc1\x01x", Loss::Protocol, 1002),
        (b"\x83\x00", Loss::Protocol, 1002),
        (b"\x81\x81\0\0\0\0x", Loss::Protocol, 1002),
    ];
    run(async |mut rig| {
        for (bytes, expected, code) in cases {
            let mut console = rig.connect().await;
            within(console.get_mut().write_all(bytes)).await.expect("sent");
            let LinkReport::Lost { link: LinkId(1), loss, error } = rig.report().await else { panic!() };
            assert_eq!(loss, expected, "{error}");
            let Message::Close(Some(frame)) = hear(&mut console).await else { panic!("no close frame: {error}") };
            assert_eq!(u16::from(frame.code), code, "{error}");
            drop(console);
            assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));
        }
    });
}

#[test]
fn a_dropped_link_is_reset_and_its_descriptor_gone_at_once() {
    run(async |mut rig| {
        let console = rig.connect().await;
        rig.link.drop_now(LinkId(1));
        // The executor has not turned since: loopback delivers the reset within the call.
        let socket = console.get_ref().get_ref();
        let error = socket.peek(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(matches!(rig.report().await, LinkReport::Closed { link: LinkId(1) }));
        // It may be dropped, closed or written to as often as one likes.
        rig.link.drop_now(LinkId(1));
        rig.link.close(LinkId(1), 1000, "");
        rig.link.write(LinkId(1), vec![WsFrame::Text("".into())]);
        assert!(rig.reports.is_empty());
    });
}

#[test]
fn frames_leave_while_the_loop_takes_no_report() {
    run(async |mut rig| {
        let mut console = rig.connect().await;
        for number in 0..report::REPORTS_MAX * 4 {
            say(&mut console, Message::text(number.to_string())).await;
        }
        // The loop takes no report until the console has the frame.
        rig.link.write(LinkId(1), vec![WsFrame::Text("through".into())]);
        assert_eq!(hear(&mut console).await, Message::text("through"));
        for number in 0..report::REPORTS_MAX * 4 {
            let mut report = rig.report().await;
            if matches!(report, LinkReport::Written { .. }) {
                report = rig.report().await;
            }
            let LinkReport::Text { text, .. } = report else { panic!() };
            assert_eq!(*text, number.to_string());
        }
    });
}

#[test]
fn full_socket_still_receives_messages() {
    run(async |mut rig| {
        let mut console = rig.connect().await;
        let batch: Vec<WsFrame> = (0..64).map(|_| WsFrame::Text("x".repeat(256 * 1024).into())).collect();
        rig.link.write(LinkId(1), batch);
        for _ in 0..10 {
            say_without_reading(&mut console, Message::text("news")).await;
            assert!(matches!(rig.report().await, LinkReport::Text { .. }));
        }
        let stuck = rig.link.bytes_written();
        assert!(stuck < 16 * 1024 * 1024, "the kernel took {stuck} bytes of 16 MiB");
        for _ in 0..64 {
            assert_eq!(hear(&mut console).await.len(), 256 * 1024);
        }
        assert!(matches!(rig.report().await, LinkReport::Written { link: LinkId(1) }));
        assert!(rig.link.bytes_written() > 16 * 1024 * 1024);
    });
}

#[test]
fn a_ping_is_answered_although_the_socket_was_full() {
    run(async |mut rig| {
        let mut console = rig.connect().await;
        rig.link.write(LinkId(1), (0..64).map(|_| WsFrame::Text("x".repeat(256 * 1024).into())).collect());
        say_without_reading(&mut console, Message::Ping(b"there?".to_vec().into())).await;
        let mut texts = 0;
        loop {
            match hear(&mut console).await {
                Message::Pong(payload) => break assert_eq!(&payload[..], b"there?"),
                Message::Text(_) => texts += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(texts <= 64);
    });
}
